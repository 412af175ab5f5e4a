//! Service-account tokens: JSON web tokens that this server signs and checks.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) uid: String,
    pub(crate) pod: Option<(String, String)>,
    pub(crate) node: Option<(String, String)>,
    pub(crate) audiences: Vec<String>,
    /// When it was issued and when it ends, in Unix seconds.
    pub(crate) issued: i64,
    pub(crate) expires: i64,
    pub(crate) id: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair, SystemRandom),
}

/// The key that signs tokens, and what they are checked with.
pub(crate) struct Signer {
    pair: Pair,
    key_id: String,
    issuer: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("key_id", &self.key_id)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Why a token is worth nothing. The text goes to the log and to TokenReviews, never to strangers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("not a token of this server")]
    Foreign,
    #[error("invalid bearer token: {0}")]
    Malformed(&'static str),
    #[error("invalid signature")]
    Signature,
    #[error("service account token has expired")]
    Expired,
    #[error("token audiences {token:?} are invalid for the target audiences {wanted:?}")]
    Audience {
        token: Vec<String>,
        wanted: Vec<String>,
    },
}

impl Signer {
    /// Reads a private key: PKCS#8, PEM or DER, Ed25519 or ECDSA P-256.
    pub(crate) fn new(key: &[u8], issuer: &str) -> Result<Self, String> {
        let der = pem_to_der(key)?;
        let random = SystemRandom::new();
        let pair = if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            Pair::Ed25519(pair)
        } else {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
                .map(|pair| Pair::P256(pair, random))
                .map_err(|_| "not an Ed25519 or ECDSA P-256 key in PKCS#8".to_owned())?
        };
        let mut signer = Self {
            pair,
            key_id: String::new(),
            issuer: issuer.to_owned(),
        };
        signer.key_id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(signer.public_key()));
        Ok(signer)
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::P256(pair, _) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(..) => "ES256",
        }
    }

    /// The public key as a JSON web key set.
    pub(crate) fn key_set(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.pair {
            Pair::Ed25519(_) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.public_key())})
            }
            // Uncompressed: 4, x, y.
            Pair::P256(..) => {
                let (x, y) = self.public_key()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
        };
        key["use"] = "sig".into();
        key["kid"] = self.key_id.as_str().into();
        key["alg"] = self.algorithm().into();
        json!({"keys": [key]})
    }

    /// Signs a token.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let mut kubernetes = json!({
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.service_account, "uid": claims.uid},
        });
        for (kind, object) in [("pod", &claims.pod), ("node", &claims.node)] {
            if let Some((name, uid)) = object {
                kubernetes[kind] = json!({"name": name, "uid": uid});
            }
        }
        let body = json!({
            "aud": claims.audiences,
            "exp": claims.expires,
            "iat": claims.issued,
            "nbf": claims.issued,
            "iss": self.issuer,
            "jti": claims.id,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account),
            "kubernetes.io": kubernetes,
        });
        let header = json!({"alg": self.algorithm(), "kid": self.key_id});
        let mut token = [header, body]
            .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(token.as_bytes()).as_ref().to_vec(),
            Pair::P256(pair, random) => pair
                .sign(random, token.as_bytes())
                .expect("invariant: the system has randomness")
                .as_ref()
                .to_vec(),
        };
        token.push('.');
        token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        token
    }

    /// Checks signature, issuer and time; the audience is [`check_audience`]'s.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Claims, Error> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Foreign)?;
        let (header, body) = signed.split_once('.').ok_or(Error::Foreign)?;
        let decode = |part: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        let header = decode(header).ok_or(Error::Foreign)?;
        let body = decode(body).ok_or(Error::Foreign)?;
        if body["iss"] != self.issuer.as_str() || header["kid"] != self.key_id.as_str() {
            return Err(Error::Foreign);
        }
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Error::Malformed("signature"))?;
        let algorithm: &dyn signature::VerificationAlgorithm = match self.pair {
            Pair::Ed25519(_) => &ED25519,
            Pair::P256(..) => &ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(algorithm, self.public_key())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Error::Signature)?;
        let claims = Claims::read(&body).ok_or(Error::Malformed("claims"))?;
        // Clocks may differ a little; these are the same clock, so nothing is added.
        if now >= claims.expires {
            return Err(Error::Expired);
        }
        Ok(claims)
    }
}

/// The audiences of `wanted` that the token is for; at least one must be.
pub(crate) fn check_audience(claims: &Claims, wanted: &[String]) -> Result<Vec<String>, Error> {
    let both: Vec<String> = wanted
        .iter()
        .filter(|a| claims.audiences.contains(a))
        .cloned()
        .collect();
    if both.is_empty() {
        let (token, wanted) = (claims.audiences.clone(), wanted.to_vec());
        return Err(Error::Audience { token, wanted });
    }
    Ok(both)
}

impl Claims {
    fn read(body: &Value) -> Option<Self> {
        let private = body.get("kubernetes.io")?;
        let named = |kind: &str| {
            let object = private.get(kind)?;
            Some((
                object.get("name")?.as_str()?.to_owned(),
                object.get("uid")?.as_str()?.to_owned(),
            ))
        };
        let (service_account, uid) = named("serviceaccount")?;
        let namespace = private.get("namespace")?.as_str()?.to_owned();
        let subject = format!("system:serviceaccount:{namespace}:{service_account}");
        if body.get("sub")?.as_str()? != subject {
            return None;
        }
        Some(Self {
            namespace,
            service_account,
            uid,
            pod: named("pod"),
            node: named("node"),
            audiences: kinds::tree::words(body, "aud")
                .into_iter()
                .map(ToOwned::to_owned)
                .collect(),
            issued: body.get("iat")?.as_i64()?,
            expires: body.get("exp")?.as_i64()?,
            id: body
                .get("jti")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

fn pem_to_der(key: &[u8]) -> Result<Vec<u8>, String> {
    let Ok(text) = std::str::from_utf8(key) else {
        return Ok(key.to_vec());
    };
    if !text.contains("-----BEGIN") {
        return Ok(key.to_vec());
    }
    let body: String = text
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    BASE64_STANDARD
        .decode(body.trim())
        .map_err(|error| format!("not PEM: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            namespace: "ns".to_owned(),
            service_account: "sa".to_owned(),
            uid: "u1".to_owned(),
            pod: Some(("p".to_owned(), "u2".to_owned())),
            node: None,
            audiences: vec!["https://issuer".to_owned()],
            issued: 1000,
            expires: 2000,
            id: "j".to_owned(),
        }
    }

    fn signers() -> Vec<Signer> {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64_STANDARD.encode(ec.as_ref())
        );
        let new = |key: &[u8]| Signer::new(key, "https://issuer").unwrap();
        vec![new(ed.as_ref()), new(ec.as_ref()), new(pem.as_bytes())]
    }

    #[test]
    fn a_token_is_read_back_until_it_expires() {
        for signer in signers() {
            let token = signer.sign(&claims());
            assert_eq!(signer.verify(&token, 1500), Ok(claims()));
            assert_eq!(signer.verify(&token, 2000), Err(Error::Expired));
        }
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let [a, b, ..] = &signers()[..] else {
            panic!("two signers")
        };
        let token = a.sign(&claims());
        assert_eq!(b.verify(&token, 1500), Err(Error::Foreign));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let mut more = claims();
        more.namespace = "kube-system".to_owned();
        let other = a.sign(&more);
        let body = other.split('.').nth(1).unwrap();
        assert_eq!(
            a.verify(&format!("{header}.{body}.{signature}"), 1500),
            Err(Error::Signature)
        );
        assert_eq!(a.verify("garbage", 1500), Err(Error::Foreign));
    }
}
