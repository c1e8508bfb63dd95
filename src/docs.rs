//! The book: what a user asks beyond a single item. Each chapter is a file of `docs/guide`, and its
//! code is tested.

#[doc = include_str!("../docs/guide/servers.md")]
pub mod servers {}
#[doc = include_str!("../docs/guide/identity.md")]
pub mod identity {}
#[doc = include_str!("../docs/guide/timestamps.md")]
pub mod timestamps {}
#[doc = include_str!("../docs/guide/delivery.md")]
pub mod delivery {}
#[doc = include_str!("../docs/guide/shutdown.md")]
pub mod shutdown {}
#[cfg(feature = "spool")]
#[doc = include_str!("../docs/guide/spool.md")]
pub mod spool {}
#[cfg(feature = "http")]
#[doc = include_str!("../docs/guide/http.md")]
pub mod http {}
#[doc = include_str!("../docs/guide/cost.md")]
pub mod cost {}
#[doc = include_str!("../docs/guide/troubleshooting.md")]
pub mod troubleshooting {}
#[cfg(feature = "testing")]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}
#[doc = include_str!("../docs/guide/coming_from.md")]
pub mod coming_from {}
