//! Page tokens: where the next page begins, and to which order and filter it belongs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Error, Key, MAX_SIZE, Request, Result};

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) sort_by: String,
    pub(super) filter: String,
    pub(super) size: i64,
    /// How many rows fitted when the first page was read.
    pub(super) total: i64,
    pub(super) key: Key,
    pub(super) id: String,
}

impl Token {
    /// The token of a request, if it has one; it must belong to the request's order and filter.
    pub(super) fn of(request: &Request) -> Result<Option<Self>> {
        if request.page_token.is_empty() {
            return Ok(None);
        }
        let token: Self = URL_SAFE_NO_PAD
            .decode(&request.page_token)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .filter(|token: &Self| (1..=MAX_SIZE).contains(&token.size))
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "page_token {:?} is not one of ours",
                    request.page_token
                ))
            })?;
        let changed = |asked: &str, kept: &str| !asked.is_empty() && asked != kept;
        if changed(&request.sort_by, &token.sort_by) || changed(&request.filter, &token.filter) {
            return Err(Error::Invalid(
                "page_token belongs to another sort_by or filter; start again without it"
                    .to_owned(),
            ));
        }
        Ok(Some(token))
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("invariant: a token is plain data"))
    }
}
