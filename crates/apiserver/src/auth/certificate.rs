//! Client certificates: taken at the handshake whoever signed them, judged here, so that a stranger
//! gets a 401 Status instead of a broken handshake.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::UserInfo;

/// The certificates a TLS client showed, leaf first; a request extension.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub Vec<CertificateDer<'static>>);

/// A verifier for [`rustls::ServerConfig`] that asks for a certificate, does not insist on one, and
/// takes any whose private key the client holds.
pub fn client_verifier() -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyCertificate {
        provider: Arc::new(rustls::crypto::ring::default_provider()),
    })
}

#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Judges certificates by the one authority that may sign users.
#[derive(Debug)]
pub(crate) struct Judge {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Judge {
    pub(crate) fn new(client_ca: Option<&[u8]>) -> Result<Self, String> {
        let Some(ca) = client_ca else {
            return Ok(Self { verifier: None });
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(ca.to_vec()))
            .map_err(|error| format!("not a certificate authority in DER: {error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| format!("not usable as a certificate authority: {error}"))?;
        Ok(Self {
            verifier: Some(verifier),
        })
    }

    /// The user a certificate names: its common name, in the groups its organizations name.
    pub(crate) fn user(&self, peer: &PeerCertificate, now: Timestamp) -> Option<UserInfo> {
        let (leaf, intermediates) = peer.0.split_first()?;
        let seconds = u64::try_from(now.as_second()).ok()?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        if let Err(error) = self
            .verifier
            .as_ref()?
            .verify_client_cert(leaf, intermediates, now)
        {
            tracing::debug!("client certificate refused: {error}");
            return None;
        }
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups: Vec<&str> = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .collect();
        Some(UserInfo::new(name, &groups))
    }
}
