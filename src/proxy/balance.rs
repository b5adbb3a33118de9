//! Which upstream is next. Pure: who may be chosen at all, and what happens then, is not decided here.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::header::{self, HeaderMap, HeaderName};
use rand::{Rng, RngExt};

#[cfg(test)]
mod tests;

/// How clients are spread over the upstreams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, and evenly at any moment even where weights differ.
    #[default]
    RoundRobin,
    /// Where the fewest connections are, in proportion to the weights; in turn where that is equal.
    LeastConnections,
    /// By chance.
    Random,
    /// The same key always at the same upstream.
    Hash(HashBy),
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Ip,
    /// The value of the cookie of this name.
    Cookie(String),
    /// The value of this header.
    Header(HeaderName),
}

impl FromStr for Balance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "round-robin" => return Ok(Self::RoundRobin),
            "least-connections" => return Ok(Self::LeastConnections),
            "random" => return Ok(Self::Random),
            _ => {}
        }
        let by = text.strip_prefix("hash:").ok_or_else(|| {
            format!(
                "'{text}' is no way to balance: round-robin, least-connections, random, hash:ip, hash:cookie:NAME or \
                 hash:header:NAME is expected"
            )
        })?;
        // A cookie's name is a token (RFC 6265, section 4.1.1), as a header's is, but its case counts.
        let name = |kind: &str, name: &str| {
            HeaderName::try_from(name).map_err(|_| {
                format!("'{name}' is not the name of a {kind}: hash:{kind}:NAME is expected")
            })
        };
        let by = match by.split_once(':') {
            None if by == "ip" => HashBy::Ip,
            None if by == "cookie" || by == "header" => {
                return Err(format!("a name is missing: hash:{by}:NAME is expected"));
            }
            None => HashBy::Header(name("header", by)?),
            Some(("header", rest)) => HashBy::Header(name("header", rest)?),
            Some(("cookie", rest)) => {
                name("cookie", rest)?;
                HashBy::Cookie(rest.to_owned())
            }
            Some((kind, _)) => {
                return Err(format!(
                    "'{kind}' cannot be hashed: hash:ip, hash:cookie:NAME or hash:header:NAME is expected"
                ));
            }
        };
        Ok(Self::Hash(by))
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("round-robin"),
            Self::LeastConnections => f.write_str("least-connections"),
            Self::Random => f.write_str("random"),
            Self::Hash(HashBy::Ip) => f.write_str("hash:ip"),
            Self::Hash(HashBy::Cookie(name)) => write!(f, "hash:cookie:{name}"),
            Self::Hash(HashBy::Header(name)) => write!(f, "hash:header:{name}"),
        }
    }
}

impl Balance {
    /// The key a request is hashed by; none: not hashed. A request without that cookie or header is hashed by its
    /// address.
    pub fn key(&self, client: IpAddr, headers: &HeaderMap) -> Option<u64> {
        let Self::Hash(by) = self else { return None };
        let of_request = match by {
            HashBy::Ip => None,
            HashBy::Cookie(name) => cookie(headers, name).map(hash),
            HashBy::Header(name) => {
                // Several lines are one list (RFC 9110, section 5.3).
                let lines: Vec<_> = headers
                    .get_all(name)
                    .iter()
                    .map(|line| line.as_bytes())
                    .collect();
                Some(lines.join(&b", "[..]))
                    .filter(|value| !value.is_empty())
                    .map(|value| hash(&value))
            }
        };
        // An IPv4 client is the same one to a listener of either family.
        Some(of_request.unwrap_or_else(|| match client.to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        }))
    }

    /// The number of the next one; none if there is none to choose from.
    pub(super) fn choose(
        &self,
        candidates: &mut [Candidate<'_>],
        key: Option<u64>,
        random: &mut impl Rng,
    ) -> Option<usize> {
        match (self, key) {
            (Self::LeastConnections, _) => least_connections(candidates),
            (Self::Random, _) => by_chance(candidates, random),
            (Self::Hash(_), Some(key)) => by_rendezvous(candidates, key),
            (Self::RoundRobin, _) | (Self::Hash(_), None) => in_turn(candidates, |_| true),
        }
    }
}

/// One that may be chosen.
pub(super) struct Candidate<'a> {
    /// Its share, at least 1.
    pub weight: u32,
    /// Its connections.
    pub active: usize,
    /// The hash of what it is, for rendezvous.
    pub identity: u64,
    /// How far its turn has come.
    pub turn: &'a mut Turn,
}

/// How far someone's turn has come: the "current weight" of nginx's smooth weighted round robin.
#[derive(Default)]
pub(super) struct Turn(i64);

/// Smooth weighted round robin, as nginx has it: each gains its weight, the richest is next and pays what all have
/// gained. After as many picks as the weights add up to, each has had exactly its weight. Those who do not take part gain and
/// pay nothing.
fn in_turn(
    candidates: &mut [Candidate<'_>],
    takes_part: impl Fn(&Candidate<'_>) -> bool,
) -> Option<usize> {
    let mut total = 0;
    let mut richest: Option<(usize, i64)> = None;
    for (number, candidate) in candidates.iter_mut().enumerate() {
        if !takes_part(candidate) {
            continue;
        }
        let weight = i64::from(candidate.weight);
        total += weight;
        candidate.turn.0 += weight;
        if richest.is_none_or(|(_, most)| candidate.turn.0 > most) {
            richest = Some((number, candidate.turn.0));
        }
    }
    let (number, _) = richest?;
    candidates[number].turn.0 -= total;
    Some(number)
}

/// The one that would have the fewest connections for its weight with this one; in turn where that is equal.
fn least_connections(candidates: &mut [Candidate<'_>]) -> Option<usize> {
    let least = candidates
        .iter()
        .map(|candidate| (candidate.active, candidate.weight))
        .min_by(|&a, &b| compare_load(a, b))?;
    in_turn(candidates, |candidate| {
        compare_load((candidate.active, candidate.weight), least).is_eq()
    })
}

/// Compares (active + 1) / weight exactly.
fn compare_load((active, weight): (usize, u32), (other, others_weight): (usize, u32)) -> Ordering {
    let load = (active as u128 + 1) * u128::from(others_weight);
    load.cmp(&((other as u128 + 1) * u128::from(weight)))
}

fn by_chance(candidates: &[Candidate<'_>], random: &mut impl Rng) -> Option<usize> {
    let total: u64 = candidates
        .iter()
        .map(|candidate| u64::from(candidate.weight))
        .sum();
    if total == 0 {
        return None;
    }
    let mut drawn = random.random_range(0..total);
    candidates.iter().position(|candidate| {
        let weight = u64::from(candidate.weight);
        let is_here = drawn < weight;
        drawn = drawn.saturating_sub(weight);
        is_here
    })
}

/// Weighted rendezvous hashing (Thaler and Ravishankar's highest random weight, with Schindelhauer and Schomaker's
/// logarithm for the weights): each scores by key and identity alone, so one that is missing moves no keys but its own.
fn by_rendezvous(candidates: &[Candidate<'_>], key: u64) -> Option<usize> {
    let score = |candidate: &Candidate<'_>| {
        let mixed = mix(key ^ mix(candidate.identity));
        // 52 bits and the half behind them are what an f64 holds exactly. The half keeps the fraction off 0 and 1.
        let fraction = ((mixed >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
        f64::from(candidate.weight) / -fraction.ln()
    };
    let scores = candidates.iter().map(score).enumerate();
    scores
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(number, _)| number)
}

/// FNV-1a with 64 bits: the same in every process and release, which the standard library's hasher does not promise.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

/// The finalizer of SplitMix64: FNV spreads the last bytes over few bits only.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The value of the first cookie of this name that has one (RFC 6265, sections 4.2 and 5.4). HTTP/2 may spread cookies over
/// several lines (RFC 9113, section 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let is_it = pair[..equals].trim_ascii() == name.as_bytes() && !value.is_empty();
        is_it.then_some(value)
    })
}
