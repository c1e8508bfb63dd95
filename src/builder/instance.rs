//! One series, one writer: which exporter on this machine is the second.
//!
//! **Problem.** Two processes of one service on one machine send the same series. OpenTSDB then
//! cannot read that hour of any of them, and every report says that all is well.
//!
//! **Idea.** What every series of an exporter has, its endpoints, prefix and tags, is its
//! *identity*. An exporter that finds its identity taken adds `instance=2` to it, or the lowest
//! number with which it is free.
//!
//! **Mechanism** (Linux). The identity is hashed into the name of an abstract Unix socket, which
//! one process can bind and which is gone with the process. Nothing is ever sent on it, nobody
//! waits for it, and what cannot be found out fails no start.
//!
//! 1. The socket is closed on exec. A child that was only forked keeps a copy, and the name with
//!    it. So the exporter shuts the socket down at its end, which holds for all copies.
//! 2. A name whose socket was shut down is as good as free, but cannot be bound. So each identity
//!    has `NAMES` names; it is taken while any of them is held.
//! 3. Who has bound one looks at the others after that. Of two who bind different names at one
//!    moment at least one sees the other.
//!
//! *Not seen:* other network namespaces, so other containers, which have other host names; a server
//! that is called by another name; and that a process was killed before it could shut its socket
//! down, while a child that it forked lives on. That number stays taken until the child ends.

use std::io::ErrorKind;

pub(super) use self::system::Claim;
use self::system::claim;
use super::options::InstanceTag;
use crate::send::endpoint::Endpoint;
use crate::wire::series::Rules;

/// The highest number that is tried. Beyond it a number is drawn at random, and not claimed.
const NUMBERS: u32 = 256;

/// Claims the identity, with a number in the rules if it takes one. `has_room` says whether a
/// series may have one more tag.
pub(super) fn settle(
    tag: &InstanceTag,
    endpoints: &[Endpoint],
    rules: &mut Rules,
    has_room: bool,
) -> Option<Claim> {
    if *tag == InstanceTag::Off {
        return None;
    }
    match claim(identity(endpoints, rules)) {
        Ok(Some(claim)) => return Some(claim),
        Ok(None) => {}
        Err(error) if error.kind() == ErrorKind::Unsupported => return None,
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot tell whether another exporter on this machine sends the same series"
            );
            return None;
        }
    }
    if *tag != InstanceTag::Auto || !has_room {
        tracing::error!(
            instance = rules.instance,
            "another exporter on this machine sends the same series, and OpenTSDB cannot read what \
             both have sent; give each its own InstanceTag::Value, and room for it in with_max_tags"
        );
        return None;
    }
    let (number, claim) = first_free(endpoints, rules);
    tracing::warn!(
        instance = number,
        "another exporter on this machine sends the same series, so this one's have the tag \
         `instance`, which a restart may change; give each its own InstanceTag::Value"
    );
    claim
}

/// Puts the lowest free number into the rules.
fn first_free(endpoints: &[Endpoint], rules: &mut Rules) -> (u32, Option<Claim>) {
    for number in 2..=NUMBERS {
        rules.instance = Some(number.to_string());
        match claim(identity(endpoints, rules)) {
            Ok(Some(claim)) => return (number, Some(claim)),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    let number = fastrand::u32(NUMBERS + 1..);
    rules.instance = Some(number.to_string());
    (number, None)
}

/// A hash of what all series of an exporter have in common. Another build of this crate has to come
/// to the same, so it is one that does not change: FNV-1a.
fn identity(endpoints: &[Endpoint], rules: &Rules) -> u64 {
    let mut addresses: Vec<_> =
        endpoints.iter().map(|endpoint| format!("{endpoint}\n").to_lowercase()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let line = rules.identify("_", std::iter::empty(), None).line();
    let (head, tail) = line.line().parts();
    let bytes = addresses.iter().flat_map(String::as_bytes).chain(head).chain(tail);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// No other system has such names.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io::{self, ErrorKind};

    pub(in crate::builder) type Claim = std::convert::Infallible;

    pub(super) fn claim(_identity: u64) -> io::Result<Option<Claim>> {
        Err(ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::{self, ErrorKind};
    use std::net::Shutdown;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// The names of an identity: one to hold, and three that forked children may have kept.
    pub(super) const NAMES: u32 = 4;

    /// Holds an identity until it is dropped.
    #[derive(Debug)]
    pub(in crate::builder) struct Claim {
        pub(super) socket: UnixDatagram,
    }

    impl Drop for Claim {
        fn drop(&mut self) {
            // Of all copies; a system that cannot do it leaves them to the ends of their processes.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn name(identity: u64, n: u32) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("metrics-exporter-opentsdb/{identity:016x}/{n}"))
    }

    /// `None` if another exporter holds it.
    pub(super) fn claim(identity: u64) -> io::Result<Option<Claim>> {
        for own in 0..NAMES {
            match UnixDatagram::bind_addr(&name(identity, own)?) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    if is_held(identity, own) {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
                Ok(socket) => {
                    let mut others = (0..NAMES).filter(|other| *other != own);
                    let is_taken = others.any(|other| is_held(identity, other));
                    return Ok((!is_taken).then_some(Claim { socket }));
                }
            }
        }
        Ok(None)
    }

    /// Whether a name has a socket that was not shut down, as far as can be found out. Asked by an
    /// empty message, which nobody reads; the kernel keeps a few of them and refuses further ones.
    fn is_held(identity: u64, n: u32) -> bool {
        let ask = || {
            let probe = UnixDatagram::unbound()?;
            probe.set_nonblocking(true)?;
            probe.send_to_addr(&[], &name(identity, n)?)
        };
        let answer = ask().map_err(|error| error.kind());
        !matches!(answer, Err(ErrorKind::BrokenPipe | ErrorKind::ConnectionRefused))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::Barrier;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    fn endpoints(texts: &[&str]) -> Vec<Endpoint> {
        texts.iter().map(|text| Endpoint::parse(text).unwrap()).collect()
    }

    /// Of a host that nobody else has, on this machine and now.
    fn rules(test: &str) -> Rules {
        let host = format!("{test}-{}", std::process::id());
        Rules { host: Some(("host".into(), host)), ..Rules::of_a_test() }
    }

    /// What an exporter does with the default.
    fn start(rules: &Rules) -> (Option<String>, Option<Claim>) {
        let mut rules = rules.clone();
        let claim = settle(&InstanceTag::Auto, &endpoints(&["tsd"]), &mut rules, true);
        (rules.instance, claim)
    }

    /// The hash with this number.
    fn numbered(rules: &Rules, number: u32) -> u64 {
        let instance = (number > 1).then(|| number.to_string());
        identity(&endpoints(&["tsd"]), &Rules { instance, ..rules.clone() })
    }

    #[test]
    fn the_second_has_the_lowest_free_number_and_a_restart_a_freed_one() {
        let rules = rules("lowest");
        let mut running: Vec<_> = (0..3).map(|_| start(&rules)).collect();
        let numbers = |running: &[(Option<String>, Option<Claim>)]| {
            let numbers = running.iter().map(|(number, _)| number.clone().unwrap_or_default());
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(numbers(&running), ["", "2", "3"]);
        assert!(running.iter().all(|(_, claim)| claim.is_some()));
        running[1] = (None, None);
        running[1] = start(&rules);
        running[0] = (None, None);
        running[0] = start(&rules);
        running.push(start(&rules));
        assert_eq!(numbers(&running), ["", "2", "3", "4"]);
    }

    #[test]
    fn an_identity_is_what_all_series_have_in_common() {
        let base = Rules::of_a_test();
        let of = |texts: &[&str], rules: &Rules| identity(&endpoints(texts), rules);
        let own = of(&["tsd-1", "tsd-2"], &base);
        assert_eq!(own, of(&["TSD-2:4242", "tcp://tsd-1", "tsd-1"], &base));
        let tags = |tags: &[(&str, &str)]| {
            tags.iter().map(|&(key, value)| (key.into(), value.into())).collect()
        };
        let (given, swapped) = (tags(&[("a", "1"), ("b", "2")]), tags(&[("b", "2"), ("a", "1")]));
        let globals = |globals| Rules { globals, ..base.clone() };
        assert_eq!(of(&["tsd"], &globals(given)), of(&["tsd"], &globals(swapped)));
        for other in [
            of(&["tsd-1"], &base),
            of(&["tsd-1", "tsd-2:4243"], &base),
            of(&["tsd-1", "tsd-2"], &Rules { prefix: "shop.".into(), ..base.clone() }),
            of(&["tsd-1", "tsd-2"], &Rules { host: None, ..globals(tags(&[("host", "b")])) }),
            of(&["tsd-1", "tsd-2"], &globals(tags(&[("zone", "eu")]))),
            of(&["tsd-1", "tsd-2"], &Rules { instance: Some("2".into()), ..base.clone() }),
        ] {
            assert_ne!(own, other);
        }
        // Whatever built the other exporter came to this, too: FNV-1a of the text
        // "tsd:4242\nput _ host=a\n".
        assert_eq!(of(&["tsd"], &base), 0x3988_928a_74d9_9896);
    }

    /// Whoever set it, and wherever.
    #[test]
    fn a_number_that_is_somebodys_value_or_global_label_is_not_free() {
        let rules = rules("value");
        let mut named = Rules { instance: Some("2".into()), ..rules.clone() };
        let value = InstanceTag::Value("2".into());
        let _named = settle(&value, &endpoints(&["tsd"]), &mut named, true).unwrap();
        let mut labelled =
            Rules { globals: vec![("instance".into(), "3".into())], ..rules.clone() };
        let labelled = settle(&InstanceTag::Auto, &endpoints(&["tsd"]), &mut labelled, true);
        let running = [start(&rules), start(&rules)];
        assert_eq!(running[0].0, None);
        assert_eq!(running[1].0.as_deref(), Some("4"));
        // A value that is taken stays what it is.
        let mut again = Rules { instance: Some("2".into()), ..rules.clone() };
        assert!(settle(&value, &endpoints(&["tsd"]), &mut again, true).is_none());
        assert_eq!(again.instance.as_deref(), Some("2"));
        drop(labelled);
    }

    #[test]
    fn without_room_for_a_tag_or_when_off_there_is_none() {
        let rules = rules("room");
        let _first = start(&rules);
        for (tag, has_room) in [(InstanceTag::Auto, false), (InstanceTag::Off, true)] {
            let mut rules = rules.clone();
            assert!(settle(&tag, &endpoints(&["tsd"]), &mut rules, has_room).is_none());
            assert_eq!(rules.instance, None);
        }
    }

    /// A copy of the socket is what a forked child has.
    #[test]
    fn a_child_that_was_forked_holds_no_number_once_the_exporter_has_ended() {
        let rules = rules("forked");
        let children: Vec<_> = (1..system::NAMES)
            .map(|_| {
                let (number, claim) = start(&rules);
                assert_eq!(number, None);
                claim.unwrap().socket.try_clone().unwrap()
            })
            .collect();
        let (number, first) = start(&rules);
        assert_eq!(number, None);
        // Names below it become free, and it still holds the identity.
        drop(children);
        assert_eq!(start(&rules).0.as_deref(), Some("2"));
        drop(first);
        assert_eq!(start(&rules).0, None);
    }

    /// While children that were forked come and go.
    #[test]
    fn no_two_that_start_at_one_moment_have_one_number() {
        let rules = rules("race");
        for round in 0..20 {
            let children: Vec<_> = (0..round % system::NAMES)
                .map(|_| start(&rules).1.unwrap().socket.try_clone().unwrap())
                .collect();
            let begin = Barrier::new(9);
            let mut numbers: Vec<_> = thread::scope(|scope| {
                let claim = || {
                    begin.wait();
                    start(&rules)
                };
                let starts: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
                begin.wait();
                drop(children);
                let running: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
                assert!(running.iter().all(|(_, claim)| claim.is_some()));
                running.into_iter().map(|(number, _)| number).collect()
            });
            numbers.sort();
            numbers.dedup();
            assert_eq!(numbers.len(), 8, "{numbers:?}");
        }
    }

    #[test]
    fn who_holds_every_name_and_reads_nothing_keeps_nobody_from_starting() {
        let rules = rules("hostile");
        let hostile: Vec<_> = (1..=NUMBERS)
            .map(|number| {
                let address = system::name(numbered(&rules, number), 0).unwrap();
                UnixDatagram::bind_addr(&address).unwrap()
            })
            .collect();
        let flood = UnixDatagram::unbound().unwrap();
        flood.set_nonblocking(true).unwrap();
        let first = hostile[0].local_addr().unwrap();
        while flood.send_to_addr(b"x", &first).is_ok() {}
        let began = Instant::now();
        let (number, claim) = start(&rules);
        assert!(began.elapsed() < Duration::from_secs(1));
        let number: u32 = number.unwrap().parse().unwrap();
        assert!(number > NUMBERS && claim.is_none(), "{number}");
    }
}
