//! Series with the shape of a node_exporter dump, the same in each run: 3,000 series of 1,200
//! names, 0 to 19 labels, and one value in twelve that has to be cleaned. Shared by `load`, for
//! `compat`, by the benches, beside series of one shape.

use metrics::{Key, Label};

pub const SERIES: usize = 3_000;
pub const NAMES: usize = SUBSYSTEMS.len() * NOUNS.len() * KINDS.len();

/// One series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub name: String,
    /// Sorted by key, which needs no cleaning.
    pub labels: Vec<(&'static str, String)>,
    pub is_counter: bool,
}

impl Series {
    pub fn key(&self) -> Key {
        let labels = self.labels.iter().map(|(key, value)| Label::new(*key, value.clone()));
        Key::from_parts(self.name.clone(), labels.collect::<Vec<_>>())
    }
}

const SUBSYSTEMS: [&str; 24] = [
    "arp",
    "bonding",
    "boot",
    "cpu",
    "disk",
    "edac",
    "entropy",
    "filesystem",
    "hwmon",
    "ipvs",
    "load",
    "mdadm",
    "memory",
    "netstat",
    "network",
    "nfs",
    "power",
    "pressure",
    "schedstat",
    "sockstat",
    "softnet",
    "time",
    "vmstat",
    "zfs",
];
const NOUNS: [&str; 10] =
    ["active", "cached", "dirty", "flush", "idle", "mapped", "queue", "read", "system", "write"];
/// Ends of names; those of a counter are the first three.
const KINDS: [&str; 5] = ["bytes_total", "errors_total", "seconds_total", "current", "ratio"];
/// In the order of the alphabet.
const LABELS: [&str; 19] = [
    "address",
    "bios",
    "broadcast",
    "chip",
    "cpu",
    "device",
    "domain",
    "duplex",
    "fstype",
    "label",
    "machine",
    "mode",
    "mountpoint",
    "node",
    "operstate",
    "release",
    "sensor",
    "sysname",
    "version",
];
/// Values as they are, and values with what some server does not take.
const CLEAN: [&str; 6] = ["eth0", "ext4", "/run/user/1000", "nvme0n1p2", "x86_64", "6.1.0-32"];
const UNCLEAN: [&str; 4] = ["Core 0", "Intel(R) Xeon(R)", "pci0000:00", "a=b, c"];

/// Steps of a linear congruential generator, for a corpus that never changes.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// All of them, in a fixed order.
pub fn node_exporter() -> Vec<Series> {
    let mut random = Random(17);
    let mut all = Vec::with_capacity(SERIES);
    for n in 0..NAMES {
        let (kind, rest) = (n % KINDS.len(), n / KINDS.len());
        let (noun, subsystem) = (rest % NOUNS.len(), rest / NOUNS.len());
        let name = format!("node_{}_{}_{}", SUBSYSTEMS[subsystem], NOUNS[noun], KINDS[kind]);
        // One name in six has many series: a processor's, a device's, a mount's.
        let series = if n % 6 == 0 { 10 } else { 1 };
        let labels = match random.below(100) {
            _ if series > 1 => 1 + random.below(3),
            0..45 => 0,
            45..80 => 1,
            80..95 => 2 + random.below(4),
            _ => 6 + random.below(14),
        };
        let first = random.below(LABELS.len() - labels + 1);
        for number in 0..series {
            let value = |(at, key)| {
                let is_unclean = random.below(12) == 0;
                let words: &[&str] = if is_unclean { &UNCLEAN } else { &CLEAN };
                let word = words[random.below(words.len())];
                // The first tells the series of a name apart, whatever becomes of the others.
                (key, if at == 0 { format!("{word}.{number}") } else { word.to_owned() })
            };
            let labels = LABELS[first..first + labels].iter().copied().enumerate().map(value);
            all.push(Series { name: name.clone(), labels: labels.collect(), is_counter: kind < 3 });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn is_clean(value: &str) -> bool {
        value.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
    }

    #[test]
    fn the_corpus_has_the_shape_of_a_node_exporter_dump() {
        let all = node_exporter();
        assert_eq!((all.len(), NAMES), (SERIES, 1_200));
        let names: HashSet<_> = all.iter().map(|series| &series.name).collect();
        assert_eq!(names.len(), NAMES);
        let lengths = || all.iter().map(|series| series.labels.len());
        assert_eq!((lengths().min(), lengths().max()), (Some(0), Some(19)));
        let values: Vec<_> = all.iter().flat_map(|series| &series.labels).collect();
        let unclean = values.iter().filter(|(_, value)| !is_clean(value)).count();
        let share = unclean as f64 / values.len() as f64;
        assert!((1.0 / 14.0..1.0 / 10.0).contains(&share), "{unclean} of {}", values.len());
    }

    #[test]
    fn series_stay_apart_when_only_their_first_label_is_kept() {
        let all = node_exporter();
        let first = |series: &Series| (series.name.clone(), series.labels.first().cloned());
        assert_eq!(all.iter().map(first).collect::<HashSet<_>>().len(), SERIES);
        assert_eq!(all, node_exporter());
    }
}
