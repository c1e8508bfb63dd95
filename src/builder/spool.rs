//! What concerns the spool alone.

use std::sync::Arc;

use super::OpenTsdbBuilder;
use super::check::check;
use super::options::InstanceTag;
use crate::error::{self, BuildError};
use crate::flush::exporter::Exporter;
use crate::send::Keep;
use crate::send::spool::keeper::Keeper;
use crate::wire::line::LineRules;

impl OpenTsdbBuilder {
    pub(super) fn check_spool(&self) -> Result<(), BuildError> {
        let Some(spool) = &self.spool else { return Ok(()) };
        let (has_room, has_age) = (spool.max_bytes > 0, !spool.max_age.is_zero());
        check("with_spool", spool, has_room, "give max_bytes room for some points")?;
        check("with_spool", spool, has_age, "give a max_age above 0")
    }

    /// Apart from the other options of the spool, since each variable of the environment is tried
    /// alone.
    pub(super) fn check_directory(&self) -> Result<(), BuildError> {
        let Some(spool) = &self.spool else { return Ok(()) };
        let is_named = !spool.directory.as_os_str().is_empty();
        let fix = "name a directory; in the environment that is OPENTSDB_SPOOL_DIR";
        check("with_spool", "", is_named, fix)
    }

    /// What has the spool, in the directory of this exporter.
    pub(super) fn keeper(&self, exporter: &Exporter) -> Result<Option<Box<dyn Keep>>, BuildError> {
        let Some(mut spool) = self.spool.clone() else { return Ok(None) };
        if let (InstanceTag::Auto, Some(number)) = (&self.instance_tag, &exporter.rules.instance) {
            spool.directory.push(number);
        }
        let Exporter { rules, queue, counters, clock, .. } = exporter;
        let lines = LineRules { max_tags: rules.max_tags, ..self.flavor.limits() };
        let (queue, counters) = (Arc::clone(queue), Arc::clone(counters));
        match Keeper::open(&spool, lines, queue, counters, clock.clone()) {
            Ok(keeper) => Ok(Some(Box::new(keeper))),
            Err(source) => {
                let (directory, source) = (spool.directory, error::cause(source));
                Err(BuildError::Spool { directory, source })
            }
        }
    }
}
