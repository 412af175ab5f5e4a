//! Who a container's process is and what it may do: ids, capabilities, limits.
//!
//! As root all of it is honoured. As an ordinary user the ids are only a view through the user
//! namespace; [`warnings`] says what that leaves out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::spec::UserSpec;

/// What a container's root may do unless it asks: the set that container runtimes agree on.
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// How the ids of a spec come about on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// Real root: ids are set.
    Root,
    /// A user namespace maps the wanted ids to our own.
    Mapped,
    /// Neither: the process stays who we are.
    None,
}

/// The user and primary group of a spec.
pub(crate) fn ids(user: &UserSpec, passwd: &str) -> (u32, u32) {
    let uid = user.uid.unwrap_or(0);
    (
        uid,
        user.gid
            .unwrap_or_else(|| primary_group(passwd, uid).unwrap_or(0)),
    )
}

fn passwd_fields(passwd: &str, uid: u32) -> Option<Vec<&str>> {
    let uid = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && fields[2] == uid)
}

fn primary_group(passwd: &str, uid: u32) -> Option<u32> {
    passwd_fields(passwd, uid)?[3].parse().ok()
}

/// The home directory of a user, `/` for an unknown one.
pub(crate) fn home(passwd: &str, uid: u32) -> String {
    let known = passwd_fields(passwd, uid)
        .map(|fields| fields[5])
        .filter(|home| !home.is_empty());
    known.unwrap_or("/").to_owned()
}

/// What of the spec this machine cannot honour, for an Event.
pub(crate) fn warnings(user: &UserSpec, power: Power) -> Vec<String> {
    let mut warnings = Vec::new();
    if power == Power::Root {
        return warnings;
    }
    let own = rustix::process::geteuid().as_raw();
    if power == Power::None && user.uid.is_some_and(|uid| uid != own) {
        let uid = user.uid.unwrap_or_default();
        warnings.push(format!(
            "runAsUser {uid} needs root: the container runs as user {own}"
        ));
    }
    if !user.groups.is_empty() {
        warnings.push(format!(
            "supplementalGroups and fsGroup {:?} need root: the container has the groups of user {own}",
            user.groups
        ));
    }
    let grants = user
        .cap_add
        .iter()
        .map(|name| short(name))
        .collect::<Vec<_>>();
    if user.privileged {
        warnings.push("privileged needs root: the container has the rights of its user".to_owned());
    } else if !grants.is_empty() {
        warnings.push(format!("capabilities {} need root", grants.join(", ")));
    }
    warnings
}

fn short(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

/// The capabilities a container's root has.
fn capabilities(user: &UserSpec) -> CapabilitySet {
    if user.privileged {
        return CapabilitySet::all();
    }
    let named = |names: &[String]| {
        names.iter().fold(CapabilitySet::empty(), |set, name| {
            match short(name).as_str() {
                "ALL" => CapabilitySet::all(),
                name => set | CapabilitySet::from_name(name).unwrap_or(CapabilitySet::empty()),
            }
        })
    };
    let (add, drop) = (named(&user.cap_add), named(&user.cap_drop));
    let is_all = |names: &[String]| names.iter().any(|name| short(name) == "ALL");
    // `drop: [ALL], add: [X]` leaves X; `add: [ALL], drop: [X]` leaves all but X.
    if is_all(&user.cap_drop) {
        return if is_all(&user.cap_add) {
            CapabilitySet::empty()
        } else {
            add
        };
    }
    (DEFAULT_CAPABILITIES | add) - drop
}

/// Becomes the user of the spec. `current` are ids as seen from inside: (uid, gid).
pub(crate) fn assume(user: &UserSpec, ids: (u32, u32), power: Power) -> io::Result<()> {
    let (uid, gid) = ids;
    let allowed = capabilities(user);
    if power != Power::None {
        for capability in CapabilitySet::all().iter() {
            if !allowed.contains(capability) {
                // A capability that this kernel does not know cannot be dropped.
                let _ = rustix::thread::remove_capability_from_bounding_set(capability);
            }
        }
    }
    if power == Power::Root {
        let groups: Vec<Gid> = user
            .groups
            .iter()
            .map(|group| Gid::from_raw(*group))
            .collect();
        rustix::thread::set_thread_groups(&groups)?;
        let gid = Some(Gid::from_raw(gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = Some(Uid::from_raw(uid));
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    if power != Power::None && uid == 0 {
        let have = rustix::thread::capabilities(None)?.permitted;
        let keep = have & allowed;
        let inheritable = CapabilitySet::empty();
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: keep,
                permitted: keep,
                inheritable,
            },
        )?;
    }
    if user.no_new_privs {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

/// Lowers resource limits. Raising one is not ours to do, unknown names are the caller's mistake.
pub(crate) fn limit(limits: &BTreeMap<String, u64>) -> io::Result<()> {
    for (name, value) in limits {
        let resource = match name.as_str() {
            "as" => Resource::As,
            "core" => Resource::Core,
            "cpu" => Resource::Cpu,
            "fsize" => Resource::Fsize,
            "memlock" => Resource::Memlock,
            "nofile" => Resource::Nofile,
            "nproc" => Resource::Nproc,
            "stack" => Resource::Stack,
            _ => {
                let problem = format!("unknown resource limit {name:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let now = rustix::process::getrlimit(resource);
        let lower = |limit: Option<u64>| Some(limit.map_or(*value, |limit| limit.min(*value)));
        let new = Rlimit {
            current: lower(now.current),
            maximum: lower(now.maximum),
        };
        rustix::process::setrlimit(resource, new)?;
    }
    Ok(())
}

/// Sets the process's standing with the OOM killer; what is refused is left as it is.
pub(crate) fn oom_score(proc: BorrowedFd<'_>, adjustment: i32) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(proc, "self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, adjustment.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/srv:/bin/sh\n";

    #[test]
    fn a_user_without_a_group_has_that_of_the_password_file() {
        let of = |uid, gid| {
            ids(
                &UserSpec {
                    uid,
                    gid,
                    ..UserSpec::default()
                },
                PASSWD,
            )
        };
        assert_eq!(of(None, None), (0, 0));
        assert_eq!(of(Some(33), None), (33, 44));
        assert_eq!(of(Some(33), Some(7)), (33, 7));
        assert_eq!(of(Some(1000), None), (1000, 0));
        assert_eq!(
            (home(PASSWD, 33), home(PASSWD, 9)),
            ("/srv".to_owned(), "/".to_owned())
        );
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_the_default() {
        let of = |add: &[&str], drop: &[&str]| {
            capabilities(&UserSpec {
                cap_add: add.iter().map(|&name| name.to_owned()).collect(),
                cap_drop: drop.iter().map(|&name| name.to_owned()).collect(),
                ..UserSpec::default()
            })
        };
        assert_eq!(of(&[], &[]), DEFAULT_CAPABILITIES);
        assert_eq!(of(&["NET_ADMIN"], &["ALL"]), CapabilitySet::NET_ADMIN);
        assert_eq!(
            of(&["CAP_NET_ADMIN"], &[]),
            DEFAULT_CAPABILITIES | CapabilitySet::NET_ADMIN
        );
        assert_eq!(
            of(&["all"], &["kill"]),
            CapabilitySet::all() - CapabilitySet::KILL
        );
        assert_eq!(of(&[], &["ALL"]), CapabilitySet::empty());
    }
}
