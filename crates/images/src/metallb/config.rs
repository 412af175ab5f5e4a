//! MetalLB's configuration: pools of addresses.

use std::net::Ipv4Addr;

use serde::Deserialize;

/// A configuration that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// The pools in the order of the file.
    pub(super) pools: Vec<Pool>,
}

/// A named set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) name: String,
    /// Whether Services that name no pool get addresses from it.
    pub(super) auto_assign: bool,
    /// Leave out addresses that end in .0 and .255, which some old equipment drops.
    pub(super) avoid_buggy_ips: bool,
    /// First and last address of each range.
    pub(super) ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Pool {
    /// Its addresses in order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.ranges
            .iter()
            .flat_map(|(first, last)| u32::from(*first)..=u32::from(*last))
            .map(Ipv4Addr::from)
            .filter(|address| self.usable(*address))
    }

    /// How many they are.
    pub(super) fn size(&self) -> u64 {
        self.ranges
            .iter()
            .map(|(first, last)| {
                let (first, last) = (u64::from(u32::from(*first)), u64::from(u32::from(*last)));
                let all = last + 1 - first;
                if !self.avoid_buggy_ips {
                    return all;
                }
                // How many addresses below this one end in the octet.
                let below = |end: u64, octet: u64| (end + 255 - octet) / 256;
                let ending = |octet| below(last + 1, octet) - below(first, octet);
                all - ending(0) - ending(255)
            })
            .sum()
    }

    /// Whether it has this address.
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.usable(address)
            && self
                .ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&address))
    }

    fn usable(&self, address: Ipv4Addr) -> bool {
        !(self.avoid_buggy_ips && matches!(address.octets()[3], 0 | 255))
    }
}

impl Config {
    /// The pool that has this address.
    pub(super) fn pool_of(&self, address: Ipv4Addr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.contains(address))
    }

    /// The pool of this name.
    pub(super) fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is not YAML of the expected shape.
    #[error("could not parse config: {0}")]
    Yaml(String),
    /// A pool cannot be used.
    #[error("parsing address pool #{number}: {problem}")]
    Pool {
        /// Counted from 1.
        number: usize,
        /// Why.
        problem: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct File {
    address_pools: Vec<FilePool>,
    peers: Vec<serde_json::Value>,
    bgp_communities: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FilePool {
    #[serde(default)]
    name: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    avoid_buggy_ips: bool,
    #[serde(default = "yes")]
    auto_assign: bool,
    #[serde(default)]
    bgp_advertisements: Vec<serde_json::Value>,
}

fn yes() -> bool {
    true
}

/// Reads a configuration.
pub(super) fn parse(text: &str) -> Result<Config, Error> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| Error::Yaml(e.to_string()))?;
    if !file.peers.is_empty() || !file.bgp_communities.is_null() {
        return Err(Error::Yaml(
            "peers and bgp-communities belong to BGP, which is not available here (allowed: \
             layer2)"
                .to_owned(),
        ));
    }
    let mut config = Config::default();
    for (index, pool) in file.address_pools.into_iter().enumerate() {
        let pool = read_pool(pool, &config).map_err(|problem| Error::Pool {
            number: index + 1,
            problem,
        })?;
        config.pools.push(pool);
    }
    Ok(config)
}

fn read_pool(pool: FilePool, before: &Config) -> Result<Pool, String> {
    if pool.name.is_empty() {
        return Err("missing pool name".to_owned());
    }
    if before.pool(&pool.name).is_some() {
        return Err(format!("duplicate definition of pool {:?}", pool.name));
    }
    match pool.protocol.as_str() {
        "layer2" => {}
        "" => {
            return Err(format!(
                "pool {:?} is missing the protocol field",
                pool.name
            ));
        }
        "bgp" => {
            return Err(format!(
                "pool {:?}: protocol bgp is not available here (allowed: layer2)",
                pool.name
            ));
        }
        other => return Err(format!("unknown protocol {other:?} (allowed: layer2)")),
    }
    if !pool.bgp_advertisements.is_empty() {
        return Err(format!(
            "pool {:?}: layer2 pools have no bgp-advertisements",
            pool.name
        ));
    }
    if pool.addresses.is_empty() {
        return Err(format!("pool {:?} has no addresses", pool.name));
    }
    let mut ranges = Vec::with_capacity(pool.addresses.len());
    for text in &pool.addresses {
        let range = range(text).map_err(|why| {
            format!(
                "invalid address range {text:?} in pool {:?}: {why}",
                pool.name
            )
        })?;
        let others = before.pools.iter().flat_map(|pool| &pool.ranges);
        for (first, last) in others.chain(&ranges) {
            if range.0 <= *last && *first <= range.1 {
                return Err(format!(
                    "address range {text:?} in pool {:?} overlaps with already defined range \
                     \"{first}-{last}\"",
                    pool.name
                ));
            }
        }
        ranges.push(range);
    }
    Ok(Pool {
        name: pool.name,
        auto_assign: pool.auto_assign,
        avoid_buggy_ips: pool.avoid_buggy_ips,
        ranges,
    })
}

/// `10.0.0.0/24` or `10.0.0.1-10.0.0.9`.
fn range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let address = |part: &str| {
        part.trim()
            .parse::<Ipv4Addr>()
            .map_err(|_| format!("{part:?} is not an IPv4 address"))
    };
    if let Some((network, prefix)) = text.split_once('/') {
        let network = u32::from(address(network)?);
        let prefix: u32 = prefix
            .parse()
            .ok()
            .filter(|p| *p <= 32)
            .ok_or("the prefix is not in 0..=32")?;
        let host_bits = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let first = network & !host_bits;
        return Ok((Ipv4Addr::from(first), Ipv4Addr::from(first | host_bits)));
    }
    let Some((first, last)) = text.split_once('-') else {
        return Err("expected a CIDR or a range FIRST-LAST".to_owned());
    };
    let (first, last) = (address(first)?, address(last)?);
    if first > last {
        return Err(format!("it ends at {last}, before its start"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_cidrs_and_ranges_are_read() {
        let config = parse(
            "address-pools:
             - name: a
               protocol: layer2
               addresses: [10.0.0.0/30, 10.0.1.5-10.0.1.6]
               avoid-buggy-ips: true
             - name: b
               protocol: layer2
               auto-assign: false
               addresses: [10.0.2.1/32]",
        )
        .unwrap();
        let addresses: Vec<String> = config.pools[0].addresses().map(|a| a.to_string()).collect();
        assert_eq!(
            addresses,
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]
        );
        assert_eq!(config.pools[0].size(), 5);
        assert!(!config.pools[1].auto_assign);
        assert_eq!(
            config.pool_of(Ipv4Addr::new(10, 0, 2, 1)).unwrap().name,
            "b"
        );
    }

    #[test]
    fn a_pool_is_counted_as_it_is_walked() {
        for range in [
            "10.0.0.0-10.0.0.0",
            "10.0.0.255-10.0.1.0",
            "10.0.0.1-10.0.3.254",
        ] {
            for avoid in [true, false] {
                let pool = Pool {
                    name: "a".to_owned(),
                    auto_assign: true,
                    avoid_buggy_ips: avoid,
                    ranges: vec![super::range(range).unwrap()],
                };
                assert_eq!(
                    pool.size(),
                    pool.addresses().count() as u64,
                    "{range} {avoid}"
                );
            }
        }
    }

    #[test]
    fn nothing_configured_is_a_configuration() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(parse("address-pools: []").unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let pool = |fields: &str| format!("address-pools: [{{{fields}}}]");
        for (text, says) in [
            (
                pool("protocol: layer2, addresses: [10.0.0.0/24]"),
                "missing pool name",
            ),
            (
                pool("name: a, addresses: [10.0.0.0/24]"),
                "missing the protocol",
            ),
            (
                pool("name: a, protocol: bgp, addresses: [10.0.0.0/24]"),
                "bgp",
            ),
            (pool("name: a, protocol: layer2"), "no addresses"),
            (
                pool("name: a, protocol: layer2, addresses: [10.0.0.9-10.0.0.1]"),
                "before its start",
            ),
            (
                pool("name: a, protocol: layer2, addresses: [10.0.0/24]"),
                "10.0.0",
            ),
            (
                pool("name: a, protocol: layer2, addresses: [10.0.0.0/24], colour: red"),
                "colour",
            ),
            ("address-pools: {".to_owned(), "could not parse"),
            (
                pool("name: a, protocol: layer2, addresses: [10.0.0.0/24, 10.0.0.9-10.0.0.10]"),
                "overlaps",
            ),
            (
                "address-pools: [{name: a, protocol: layer2, addresses: [10.0.0.0/24]}, {name: b, \
                 protocol: layer2, addresses: [10.0.0.7/32]}]"
                    .to_owned(),
                "overlaps",
            ),
            ("peers: [{my-asn: 1}]".to_owned(), "layer2"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
