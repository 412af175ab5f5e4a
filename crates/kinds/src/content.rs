//! The formats of names, keys and values: DNS labels and subdomains, qualified names, label values,
//! port names, config keys, environment names. Each function returns its complaints, none if it
//! is content.

use std::sync::LazyLock;

use regex::Regex;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";
const ENV_NAME: &str = "[-._a-zA-Z][-._a-zA-Z0-9]*";
const HTTP_HEADER: &str = "[-A-Za-z0-9]+";

const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
     characters or '-', and must start and end with an alphanumeric character";
const DNS1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
     '-', start with an alphabetic character, and end with an alphanumeric character";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
     alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character";

macro_rules! anchored {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(&format!("^(?:{})$", $pattern)).expect("invariant: the pattern is constant")
        });
    };
}
anchored!(LABEL_RE, LABEL);
anchored!(DNS1035_RE, DNS1035);
anchored!(SUBDOMAIN_RE, SUBDOMAIN);
anchored!(WILDCARD_RE, WILDCARD);
anchored!(QUALIFIED_RE, QUALIFIED);
anchored!(LABEL_VALUE_RE, LABEL_VALUE);
anchored!(CONFIG_KEY_RE, CONFIG_KEY);
anchored!(ENV_NAME_RE, ENV_NAME);
anchored!(HTTP_HEADER_RE, HTTP_HEADER);

fn regex_error(words: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{words} (regex used for validation is '{pattern}')");
    }
    let quoted: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}'"))
        .collect();
    format!(
        "{words} (e.g. {}, regex used for validation is '{pattern}')",
        quoted.join(",  or ")
    )
}

fn max_len(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_len(63));
    }
    if !LABEL_RE.is_match(value) {
        if SUBDOMAIN_RE.is_match(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(regex_error(LABEL_WORDS, LABEL, &["my-name", "123-abc"]));
        }
    }
    errors
}

pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if !SUBDOMAIN_RE.is_match(value) {
        errors.push(regex_error(SUBDOMAIN_WORDS, SUBDOMAIN, &["example.com"]));
    }
    errors
}

/// A subdomain whose first label is `*`.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if !WILDCARD_RE.is_match(value) {
        let words = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
             subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and \
             end with an alphanumeric character";
        errors.push(regex_error(words, WILDCARD, &["*.example.com"]));
    }
    errors
}

pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_len(63));
    }
    if !DNS1035_RE.is_match(value) {
        errors.push(regex_error(DNS1035_WORDS, DNS1035, &["my-name", "abc-123"]));
    }
    errors
}

/// `[prefix/]name`, the form of label and annotation keys, resource names and finalizers.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|e| format!("prefix part {e}")),
                );
            }
            *name
        }
        _ => {
            let words = format!("a qualified name {QUALIFIED_WORDS}");
            let examples = ["MyName", "my.name", "123-abc"];
            errors.push(format!(
                "{} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(&words, QUALIFIED, &examples)
            ));
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", max_len(63)));
    }
    if !QUALIFIED_RE.is_match(name) {
        errors.push(format!(
            "name part {}",
            regex_error(
                QUALIFIED_WORDS,
                QUALIFIED,
                &["MyName", "my.name", "123-abc"]
            )
        ));
    }
    errors
}

pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_len(63));
    }
    if !LABEL_VALUE_RE.is_match(value) {
        let words = "a valid label must be an empty string or consist of alphanumeric characters, \
             '-', '_' or '.', and must start and end with an alphanumeric character";
        errors.push(regex_error(
            words,
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if !CONFIG_KEY_RE.is_match(value) {
        let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(regex_error(
            words,
            CONFIG_KEY,
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(no_dot_names(value));
    errors
}

fn no_dot_names(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable, as relaxed since Kubernetes 1.34: any printable ASCII
/// character but `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must not be empty".to_owned()];
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters \
             other than '='"
                .to_owned(),
        ];
    }
    Vec::new()
}

/// The older, stricter form, which prefixes of `envFrom` in some places still have.
pub fn env_var_name_strict(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if !ENV_NAME_RE.is_match(value) {
        let words = "a valid environment variable name must consist of alphabetic characters, \
             digits, '_', '-', or '.', and must not start with a digit";
        errors.push(regex_error(
            words,
            ENV_NAME,
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errors.extend(no_dot_names(value));
    errors
}

pub fn http_header_name(value: &str) -> Vec<String> {
    if HTTP_HEADER_RE.is_match(value) {
        return Vec::new();
    }
    let words = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(words, HTTP_HEADER, &["X-Header-Name"])]
}

/// The name of a container's port.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(max_len(15));
    }
    if !value
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        errors
            .push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.chars().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

pub fn ip_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

pub fn ipv4_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::Ipv4Addr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IPv4 address".to_owned()]
}

pub fn cidr(value: &str) -> Vec<String> {
    let valid = value.split_once('/').is_some_and(|(ip, bits)| {
        let Ok(ip) = ip.parse::<std::net::IpAddr>() else {
            return false;
        };
        let limit = if ip.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().is_ok_and(|bits| bits <= limit)
    });
    if valid {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// What a name must never be, as it stands in a URL path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|part| name.contains(part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

// Name rules of kinds; `prefix` says that a random suffix will follow.

pub fn name_is_dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(&masked(name, prefix))
}

pub fn name_is_dns_label(name: &str, prefix: bool) -> Vec<String> {
    dns1123_label(&masked(name, prefix))
}

pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    dns1035_label(&masked(name, prefix))
}

pub fn name_is_path_segment(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        return path_segment(name)
            .into_iter()
            .filter(|e| e.starts_with("may not contain"))
            .collect();
    }
    path_segment(name)
}

/// A generateName may end in a dash, since a suffix follows.
fn masked(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(stem) if prefix && !stem.is_empty() => format!("{stem}a"),
        _ => name.to_owned(),
    }
}
