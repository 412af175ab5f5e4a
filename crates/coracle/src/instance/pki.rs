//! The keys of an instance: its certificate authority, the certificates it signs, the key of its
//! service-account tokens, the administrator's token.
//!
//! Made once per data directory and kept; only the server's own certificate is made again when the
//! addresses it must name have changed.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use stdx::{Clock, Rng};

use crate::failure::{Failure, Result, attempting};
use crate::instance::DataDir;

/// Everything is valid for this long; a data directory that gets older makes new certificates.
const VALID_DAYS: i64 = 3650;

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The keys of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    /// The certificate authority's certificate, PEM.
    pub(crate) ca: String,
    /// The API server's.
    pub(crate) server: Pair,
    /// The administrator's client certificate (group `system:masters`).
    pub(crate) admin: Pair,
    /// The node agent's server certificate.
    pub(crate) kubelet: Pair,
    /// The API server's client certificate towards the node agent.
    pub(crate) kubelet_client: Pair,
    /// Signs service-account tokens: ECDSA P-256, PKCS#8 PEM.
    pub(crate) service_account_key: String,
    /// The administrator's bearer token.
    pub(crate) admin_token: String,
}

/// The addresses and names the API server's certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerNames {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) dns: Vec<String>,
}

impl ServerNames {
    fn fingerprint(&self) -> String {
        let mut names: Vec<String> = self.ips.iter().map(ToString::to_string).collect();
        names.extend(self.dns.iter().cloned());
        names.sort();
        names.join("\n")
    }
}

impl Pki {
    /// Reads the keys of a data directory, making what is missing.
    pub(crate) fn open(
        data: &DataDir,
        names: &ServerNames,
        node_ip: IpAddr,
        clock: &dyn Clock,
        rng: &dyn Rng,
    ) -> Result<Self> {
        let maker = Maker {
            dir: data.pki(),
            clock,
            rng,
        };
        let ca = maker.authority()?;
        let issuer = Issuer::from_ca_cert_pem(
            &ca.certificate,
            KeyPair::from_pem(&ca.key).map_err(attempting("read the authority's key"))?,
        )
        .map_err(attempting("read the authority's certificate"))?;
        let server = maker.signed("apiserver", &issuer, &names.fingerprint(), || {
            let mut params = params("kube-apiserver", &[])?;
            params.subject_alt_names = names.ips.iter().map(|ip| SanType::IpAddress(*ip)).collect();
            for name in &names.dns {
                let name = name
                    .as_str()
                    .try_into()
                    .map_err(attempting("name the server"))?;
                params.subject_alt_names.push(SanType::DnsName(name));
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(params)
        })?;
        let kubelet = maker.signed("kubelet", &issuer, &node_ip.to_string(), || {
            let mut params = params("kubelet", &[])?;
            params.subject_alt_names = vec![SanType::IpAddress(node_ip)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(params)
        })?;
        let client = |file: &str, user: &str, groups: &[&str]| {
            maker.signed(file, &issuer, "", || {
                let mut params = params(user, groups)?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                Ok(params)
            })
        };
        Ok(Self {
            server,
            kubelet,
            admin: client("admin", "kubernetes-admin", &["system:masters"])?,
            kubelet_client: client(
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                &[],
            )?,
            service_account_key: maker.kept("sa.key", || {
                Ok(KeyPair::generate()
                    .map_err(attempting("make a key"))?
                    .serialize_pem())
            })?,
            admin_token: maker.kept("admin.token", || {
                let mut bytes = [0; 32];
                rng.fill(&mut bytes);
                Ok(URL_SAFE_NO_PAD.encode(bytes))
            })?,
            ca: ca.certificate,
        })
    }

    /// The administrator's token of a data directory, whether or not its server runs.
    pub(crate) fn admin_token(data: &DataDir) -> Result<String> {
        let path = data.pki().join("admin.token");
        fs::read_to_string(&path).map_err(|e| {
            Failure::environment(format!("read {}: {e}", path.display()))
                .hint("start a server with `coracle up` first")
        })
    }
}

fn params(user: &str, groups: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())
        .map_err(attempting("describe a certificate"))?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name = name;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    Ok(params)
}

/// Makes keys and keeps them in files.
struct Maker<'a> {
    dir: PathBuf,
    clock: &'a dyn Clock,
    rng: &'a dyn Rng,
}

impl Maker<'_> {
    fn kept(&self, file: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
        let path = self.dir.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = make()?;
                write(&path, &text)?;
                Ok(text)
            }
            Err(e) => Err(Failure::environment(format!(
                "read {}: {e}",
                path.display()
            ))),
        }
    }

    fn validity(&self, params: &mut CertificateParams) -> Result<()> {
        let now = self.clock.now().as_second();
        let at = |second: i64| {
            jiff::Timestamp::from_second(second)
                .map(|t| t.to_zoned(jiff::tz::TimeZone::UTC))
                .map_err(attempting("date a certificate"))
        };
        // A day of slack for machines whose clocks disagree.
        let (from, until) = (at(now - 86_400)?, at(now + VALID_DAYS * 86_400)?);
        params.not_before =
            rcgen::date_time_ymd(from.year().into(), from.month() as u8, from.day() as u8);
        params.not_after =
            rcgen::date_time_ymd(until.year().into(), until.month() as u8, until.day() as u8);
        let mut serial = [0; 16];
        self.rng.fill(&mut serial);
        serial[0] &= 0x7f;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
        Ok(())
    }

    fn authority(&self) -> Result<Pair> {
        let (certificate, key) = (self.dir.join("ca.crt"), self.dir.join("ca.key"));
        if let (Ok(certificate), Ok(key)) =
            (fs::read_to_string(&certificate), fs::read_to_string(&key))
        {
            return Ok(Pair { certificate, key });
        }
        let pair = KeyPair::generate().map_err(attempting("make the authority's key"))?;
        let mut params = params("coracle", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        self.validity(&mut params)?;
        let signed = params
            .self_signed(&pair)
            .map_err(attempting("sign the authority"))?;
        let made = Pair {
            certificate: signed.pem(),
            key: pair.serialize_pem(),
        };
        // The key first: a certificate without its key would be taken for whole.
        write(&key, &made.key)?;
        write(&certificate, &made.certificate)?;
        Ok(made)
    }

    /// A certificate signed by the authority; made again when `fingerprint` differs from the kept.
    fn signed(
        &self,
        file: &str,
        issuer: &Issuer<'_, KeyPair>,
        fingerprint: &str,
        describe: impl FnOnce() -> Result<CertificateParams>,
    ) -> Result<Pair> {
        let path = |ending: &str| self.dir.join(format!("{file}.{ending}"));
        let kept = (
            fs::read_to_string(path("crt")),
            fs::read_to_string(path("key")),
            fs::read_to_string(path("names")).unwrap_or_default(),
        );
        if let (Ok(certificate), Ok(key), names) = kept {
            if names == fingerprint {
                return Ok(Pair { certificate, key });
            }
        }
        let mut params = describe()?;
        self.validity(&mut params)?;
        let pair = KeyPair::generate().map_err(attempting("make a key"))?;
        let signed = params
            .signed_by(&pair, issuer)
            .map_err(attempting("sign a certificate"))?;
        let made = Pair {
            certificate: signed.pem(),
            key: pair.serialize_pem(),
        };
        write(&path("key"), &made.key)?;
        write(&path("crt"), &made.certificate)?;
        if !fingerprint.is_empty() {
            write(&path("names"), fingerprint)?;
        }
        Ok(made)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    stdx::fs::write_atomic(path, text.as_bytes(), 0o600)
        .map_err(|e| Failure::environment(format!("write {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::{SystemClock, SystemRng};

    fn names(ip: &str) -> ServerNames {
        ServerNames {
            ips: vec![ip.parse().unwrap()],
            dns: vec!["localhost".to_owned()],
        }
    }

    #[test]
    fn keys_are_kept_and_only_the_server_certificate_follows_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path()).unwrap();
        data.create().unwrap();
        let node = "127.97.0.1".parse().unwrap();
        let open =
            |ip: &str| Pki::open(&data, &names(ip), node, &SystemClock::new(), &SystemRng).unwrap();
        let (first, same, moved) = (open("127.0.0.1"), open("127.0.0.1"), open("127.0.0.2"));
        assert_eq!(first.server.certificate, same.server.certificate);
        assert_ne!(first.server.certificate, moved.server.certificate);
        assert_eq!(first.ca, moved.ca);
        assert_eq!(first.admin.certificate, moved.admin.certificate);
        assert_eq!(first.admin_token, Pki::admin_token(&data).unwrap());
    }
}
