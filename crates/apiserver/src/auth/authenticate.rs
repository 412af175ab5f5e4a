//! Finding out who asks: an identity given by the embedding program, a client certificate, a bearer
//! token, or nobody; then whom they want to be taken for.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Extensions, HeaderMap};
use kinds::tree;
use stdx::SharedClock;

use super::certificate::{Judge, PeerCertificate};
use super::rbac::{Attributes, Authorizer};
use super::token::{self, Claims, Signer};
use super::{AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::status::{Result, Status};
use crate::storage::Store;

#[derive(Debug)]
pub(crate) struct Authenticator {
    pub(crate) judge: Judge,
    pub(crate) signer: Signer,
    pub(crate) static_tokens: HashMap<String, UserInfo>,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: SharedClock,
}

impl Authenticator {
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<UserInfo> {
        if let Some(user) = extensions.get::<UserInfo>() {
            return Ok(user.clone());
        }
        let peer = extensions.get::<PeerCertificate>();
        if let Some(user) = peer.and_then(|peer| self.judge.user(peer, self.clock.now())) {
            return Ok(user);
        }
        if let Some(token) = bearer(headers) {
            return self
                .token_user(token, &self.own_audience())
                .map(|(user, _)| user)
                .map_err(|error| {
                    tracing::debug!("bearer token refused: {error}");
                    Status::unauthorized()
                });
        }
        if peer.is_some() {
            Err(Status::unauthorized())
        } else {
            Ok(UserInfo::anonymous())
        }
    }

    pub(crate) fn own_audience(&self) -> Vec<String> {
        vec![self.signer.issuer().to_owned()]
    }

    /// The user a token stands for, and which of the audiences it is for.
    pub(crate) fn token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(UserInfo, Vec<String>), String> {
        if let Some(user) = self.static_tokens.get(token) {
            return Ok((user.clone(), audiences.to_vec()));
        }
        let now = self.clock.now().as_second();
        let claims = self.signer.verify(token, now).map_err(|e| e.to_string())?;
        let audiences = token::check_audience(&claims, audiences).map_err(|e| e.to_string())?;
        self.still_there(&claims)?;
        let mut user = UserInfo::service_account(&claims.namespace, &claims.service_account);
        user.uid = claims.uid;
        let mut extra = |key: &str, value: String| {
            user.extra
                .insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        extra("credential-id", format!("JTI={}", claims.id));
        for (kind, object) in [("pod", claims.pod), ("node", claims.node)] {
            if let Some((name, uid)) = object {
                extra(&format!("{kind}-name"), name);
                extra(&format!("{kind}-uid"), uid);
            }
        }
        Ok((user, audiences))
    }

    /// A token dies with the account and with the Pod it is bound to.
    fn still_there(&self, claims: &Claims) -> Result<(), String> {
        let uid_of = |resource: &str, namespace: &str, name: &str| {
            let object = self.store.get_value("", resource, namespace, name)?;
            Some(tree::text(&object, "metadata.uid").to_owned())
        };
        let namespace = claims.namespace.as_str();
        match uid_of("serviceaccounts", namespace, &claims.service_account) {
            None => return Err("service account has been deleted".to_owned()),
            Some(uid) if uid != claims.uid => {
                return Err("service account UID does not match claim".to_owned());
            }
            Some(_) => {}
        }
        if let Some((name, uid)) = &claims.pod
            && uid_of("pods", namespace, name).as_deref() != Some(uid.as_str())
        {
            return Err("pod has been deleted".to_owned());
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Takes the user for whom the `Impersonate-*` headers ask, if RBAC allows it.
pub(crate) fn impersonate(
    user: UserInfo,
    headers: &HeaderMap,
    authorizer: &Authorizer,
) -> Result<UserInfo> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    let name = text("impersonate-user");
    let uid = text("impersonate-uid");
    let groups: Vec<&str> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let extra: Vec<(String, &str)> = headers
        .iter()
        .filter_map(|(key, value)| {
            let key = key.as_str().strip_prefix("impersonate-extra-")?;
            let key = percent_encoding::percent_decode_str(key)
                .decode_utf8_lossy()
                .into_owned();
            Some((key, value.to_str().ok()?))
        })
        .collect();
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(Status::internal(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }
    let service_account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .filter(|(namespace, account)| !namespace.is_empty() && !account.is_empty());
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let wanted = Attributes {
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name,
            path: None,
        };
        if authorizer.allows(&user, &wanted) {
            return Ok(());
        }
        Err(Status::forbidden(
            group,
            resource,
            name,
            &wanted.refusal(&user),
        ))
    };
    match service_account {
        Some((namespace, account)) => check("", "serviceaccounts", "", namespace, account)?,
        None => check("", "users", "", "", name)?,
    }
    for group in &groups {
        check("", "groups", "", "", group)?;
    }
    for (key, value) in &extra {
        check("authentication.k8s.io", "userextras", key, "", value)?;
    }
    if !uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", uid)?;
    }
    let mut taken = match service_account {
        Some((namespace, account)) if groups.is_empty() => {
            UserInfo::service_account(namespace, account)
        }
        _ => UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
            ..UserInfo::default()
        },
    };
    let everyone = if name == "system:anonymous" {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !taken.in_group(AUTHENTICATED) && !taken.in_group(UNAUTHENTICATED) {
        taken.groups.push(everyone.to_owned());
    }
    uid.clone_into(&mut taken.uid);
    for (key, value) in extra {
        taken.extra.entry(key).or_default().push(value.to_owned());
    }
    Ok(taken)
}
