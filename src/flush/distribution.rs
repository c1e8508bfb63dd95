//! stub
use crate::record::{buckets::Scheme, readout::Readout, samples::Shape};
use crate::wire::{line::Variant, value::Value};
use std::sync::Arc;
/// x
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Distribution {
    #[default]
    /// x
    Summary,
    /// x
    Buckets,
}
/// x
#[derive(Clone, Debug)]
pub enum Matcher {
    /// x
    Full(String),
}
#[derive(Clone, Debug)]
pub(crate) struct Plans;
pub(crate) struct Plan;
impl Plans {
    pub(crate) fn plan(&self, _: &str) -> Arc<Plan> {
        Arc::new(Plan)
    }
    pub(crate) fn shape(&self, _: &str) -> Shape {
        Shape { scheme: Scheme::Log, own_tag: None }
    }
}
impl Plan {
    pub(crate) fn lines(&self, r: &Readout, f: &mut impl FnMut(Variant<'_>, Value)) {
        f(Variant { suffix: ".count", tag: "" }, r.total_count.into())
    }
}
