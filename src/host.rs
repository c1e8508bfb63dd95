//! The name of this machine, for the `host` tag.

/// The machine's host name as the kernel has it, or `None` when there is none that can be written
/// as text.
pub(crate) fn name() -> Option<String> {
    let name = hostname::get().ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}
