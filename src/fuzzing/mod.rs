//! What the fuzz targets of `fuzz/` check, one function a target: each takes any bytes and panics
//! where a law does not hold.
//!
//! The functions are here, under `--cfg fuzzing` and in tests, since they reach into the crate.
//! `cargo test` runs them over the corpora that are committed.
//!
//! 1. [`input`]: a target's bytes, taken apart;
//! 2. [`replies`]: what a server says, in any cut;
//! 3. [`model`]: a line and its identity as `docs/contract.md` has them; [`identity`] against it;
//! 4. [`values`]: numbers, written and read;
//! 5. [`settings`]: addresses and the environment;
//! 6. [`tsd`]: the parser of `FakeTsd`.
//!
//! What only `send` can reach is beside it: `send/http/fuzz`, `send/spool/fuzz`.

mod identity;
mod input;
mod model;
mod replies;
mod settings;
#[cfg(feature = "testing")]
mod tsd;
mod values;

pub use identity::identity;
pub use replies::replies;
pub use settings::{address, environment};
#[cfg(feature = "testing")]
pub use tsd::fake_tsd;
pub use values::values;

#[cfg(feature = "http")]
pub use crate::send::http::fuzz::http_answer;
#[cfg(feature = "spool")]
pub use crate::send::spool::fuzz::spool;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs a target over its corpus. Only the published package has none.
    fn replay(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        if !fuzz.exists() {
            return;
        }
        let corpus = fuzz.join("corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&corpus).expect("a corpus") {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("a readable file");
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name} fails with {}", path.display());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }

    #[test]
    fn each_corpus_passes_its_target() {
        replay("replies", super::replies);
        replay("identity", super::identity);
        replay("values", super::values);
        replay("address", super::address);
        replay("environment", super::environment);
        #[cfg(feature = "testing")]
        replay("fake_tsd", super::fake_tsd);
        #[cfg(feature = "http")]
        replay("http_answer", super::http_answer);
        #[cfg(feature = "spool")]
        replay("spool", super::spool);
    }
}
