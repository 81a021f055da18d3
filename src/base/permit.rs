//! Permits: each connection that is no EPMD client's takes one, so that nodes always find a descriptor.

use std::sync::Arc;

use pmd_epmd::descriptors::{Class, Descriptors};

/// The right to one descriptor of the class [`Link`](Class::Link), given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Descriptors>);

impl Permit {
    /// Takes one, if there is room.
    #[must_use]
    pub fn take(descriptors: &Arc<Descriptors>) -> Option<Permit> {
        descriptors.reserve(Class::Link).ok()?;
        Some(Permit(Arc::clone(descriptors)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release(Class::Link);
    }
}
