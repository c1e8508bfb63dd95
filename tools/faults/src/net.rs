//! Breaks the network of this namespace, and mends it again.

use std::process::Command;

/// Runs a command that must work.
fn command(line: &str) {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

/// A rule of the packet filter for one port, until it is dropped.
pub(crate) struct Filter {
    table: String,
}

impl Filter {
    /// What comes for this port vanishes, as do the answers.
    pub(crate) fn blackhole(port: u16) -> Filter {
        Filter::rules(port, "counter drop")
    }

    /// Each packet with data is thrown away with this probability of a hundred.
    pub(crate) fn loss(port: u16, percent: u32) -> Filter {
        Filter::rules(port, &format!("numgen random mod 100 < {percent} counter drop"))
    }

    /// What comes for this port is answered with a reset, to the one side alone.
    pub(crate) fn reset(port: u16) -> Filter {
        Filter::rules(port, "counter reject with tcp reset")
    }

    fn rules(port: u16, verdict: &str) -> Filter {
        let table = format!("fault{port}x{}", fastrand::u32(..));
        command(&format!("nft add table inet {table}"));
        let filter = Filter { table };
        let table = &filter.table;
        command(&format!(
            "nft add chain inet {table} in {{ type filter hook input priority 0 ; }}"
        ));
        command(&format!("nft add rule inet {table} in tcp dport {port} {verdict}"));
        if !verdict.contains("reject") {
            command(&format!("nft add rule inet {table} in tcp sport {port} {verdict}"));
        }
        filter
    }

    /// How many packets it took.
    pub(crate) fn packets(&self) -> u64 {
        let output = Command::new("nft").args(["list", "table", "inet", &self.table]).output();
        let text = String::from_utf8(output.expect("nft lists").stdout).expect("text");
        let words: Vec<_> = text.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "packets");
        counts.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // The namespace goes with us, should it fail.
        let _ = Command::new("nft").args(["delete", "table", "inet", &self.table]).output();
    }
}

/// All of loopback is a link of so many bits a second, until it is dropped.
pub(crate) struct SlowLink;

impl SlowLink {
    pub(crate) fn new(rate: &str) -> SlowLink {
        // With loopback's own 64 KiB a packet would not fit into the bucket.
        command("ip link set lo mtu 1500");
        command(&format!("tc qdisc add dev lo root tbf rate {rate} burst 4kb latency 400ms"));
        SlowLink
    }

    /// How many packets had to wait.
    pub(crate) fn overlimits(&self) -> u64 {
        let output = Command::new("tc").args(["-s", "qdisc", "show", "dev", "lo"]).output();
        let text = String::from_utf8(output.expect("tc shows").stdout).expect("text");
        let words: Vec<_> = text.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "overlimits");
        counts.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        let _ = Command::new("tc").args(["qdisc", "del", "dev", "lo", "root"]).output();
        let _ = Command::new("ip").args(["link", "set", "lo", "mtu", "65536"]).output();
    }
}

pub(crate) fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address with a port")
}
