//! The flags of kubectl that a resource template may give.

/// What the flags ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// The objects, if no manifest says which: their kind (or resource) and names.
    pub target: Option<(String, Vec<String>)>,
    /// Or those with these labels.
    pub selector: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// Deleting waits until the object is gone.
    pub wait: Option<bool>,
    /// How deletion goes on: `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
    /// Seconds a deleted Pod is given.
    pub grace_period: Option<u32>,
    /// The strategy of a patch.
    pub patch_type: Option<String>,
    /// Who owns the fields of an applied manifest.
    pub field_manager: Option<String>,
    /// How strict unknown fields are looked at: `Strict`, `Warn` or `Ignore`.
    pub validation: Option<&'static str>,
    /// Only tried, not carried out.
    pub dry_run: bool,
}

const KNOWN: &str = "--ignore-not-found, --wait, --cascade, --grace-period, --now, --force, --timeout, \
     --namespace (-n), --selector (-l), --type, --field-manager, --server-side, --force-conflicts, \
     --validate, --dry-run, --overwrite, --save-config, --record, --output (-o), TYPE NAME and TYPE/NAME";

/// Reads flags; the error names the one that is not understood.
pub fn parse(flags: &[String]) -> Result<Flags, String> {
    let mut parsed = Flags::default();
    let mut words: Vec<&str> = Vec::new();
    let mut rest = flags.iter().map(String::as_str);
    while let Some(flag) = rest.next() {
        if !flag.starts_with('-') || flag == "-" {
            words.push(flag);
            continue;
        }
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        // kubectl's boolean flags take a value only after `=`.
        let switch = |value: Option<&str>| match value {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(format!("flag {flag:?}: expected true or false")),
        };
        let mut value = || {
            given
                .or_else(|| rest.next())
                .map(str::to_owned)
                .ok_or_else(|| format!("flag {flag:?} needs a value"))
        };
        match name {
            "--ignore-not-found" | "--force" | "--server-side" | "--force-conflicts"
            | "--overwrite" | "--save-config" | "--record" => {
                switch(given)?;
            }
            "--wait" => parsed.wait = Some(switch(given)?),
            "--now" => parsed.grace_period = switch(given)?.then_some(1),
            "--cascade" => {
                parsed.propagation = Some(match given {
                    None | Some("background" | "true") => "Background",
                    Some("foreground") => "Foreground",
                    Some("orphan" | "false") => "Orphan",
                    Some(_) => {
                        return Err(format!(
                            "flag {flag:?}: expected background, foreground or orphan"
                        ));
                    }
                });
            }
            "--grace-period" => {
                let value = value()?;
                parsed.grace_period = match value.as_str() {
                    "-1" => None,
                    _ => Some(value.parse().map_err(|_| {
                        format!("flag {flag:?}: expected a whole number of seconds, got {value:?}")
                    })?),
                };
            }
            "--validate" => {
                parsed.validation = Some(match given {
                    None | Some("true" | "strict") => "Strict",
                    Some("warn") => "Warn",
                    Some("false" | "ignore") => "Ignore",
                    Some(_) => {
                        return Err(format!("flag {flag:?}: expected strict, warn or ignore"));
                    }
                });
            }
            "--dry-run" => parsed.dry_run = !matches!(given, Some("none")),
            "--namespace" | "-n" => parsed.namespace = Some(value()?),
            "--selector" | "-l" => parsed.selector = Some(value()?),
            "--type" => parsed.patch_type = Some(value()?),
            "--field-manager" => parsed.field_manager = Some(value()?),
            // How the answer is printed, and how long one waits for it, the template has its own words for.
            "--output" | "-o" | "--timeout" | "--request-timeout" => {
                value()?;
            }
            _ => {
                return Err(format!(
                    "flag {flag:?} is not supported; supported are {KNOWN}"
                ));
            }
        }
    }
    let Some((first, others)) = words.split_first() else {
        return Ok(parsed);
    };
    let names = |words: &[&str]| words.iter().map(|&name| name.to_owned()).collect();
    parsed.target = Some(match first.split_once('/') {
        Some((kind, name)) if others.is_empty() => (kind.to_owned(), vec![name.to_owned()]),
        Some(_) => {
            return Err(format!(
                "name one TYPE/NAME, or TYPE and names, not {words:?}"
            ));
        }
        None => ((*first).to_owned(), names(others)),
    });
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &str) -> Result<Flags, String> {
        let flags: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
        parse(&flags)
    }

    #[test]
    fn flags_are_read_as_kubectl_reads_them() {
        let flags =
            read("pvc a b --wait=false -n other --cascade=orphan --grace-period 3").unwrap();
        assert_eq!(
            flags,
            Flags {
                target: Some(("pvc".into(), vec!["a".into(), "b".into()])),
                namespace: Some("other".into()),
                wait: Some(false),
                propagation: Some("Orphan"),
                grace_period: Some(3),
                ..Flags::default()
            }
        );
        let flags = read("pod/x --selector=a=b,c --ignore-not-found --validate=false").unwrap();
        assert_eq!(flags.target, Some(("pod".into(), vec!["x".into()])));
        assert_eq!(flags.selector.as_deref(), Some("a=b,c"));
        assert_eq!(flags.validation, Some("Ignore"));
        assert_eq!(read("").unwrap(), Flags::default());
    }

    #[test]
    fn flags_that_are_not_understood_are_named() {
        let check = |flags: &str, expect: &str| {
            let problem = read(flags).unwrap_err();
            assert!(problem.contains(expect), "{flags}: {problem}");
        };
        check(
            "--recursive",
            "flag \"--recursive\" is not supported; supported are --ignore",
        );
        check("--wait=maybe", "expected true or false");
        check("--namespace", "needs a value");
        check("--grace-period=soon", "whole number of seconds");
        check(
            "--cascade=maybe",
            "expected background, foreground or orphan",
        );
        check("pod/a pod/b", "name one TYPE/NAME");
    }
}
