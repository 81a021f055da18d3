//! Permits for connections other than those of EPMD clients, so that descriptors are always left for nodes.

use std::sync::Arc;

use pmd_epmd::descriptors::{Class, Descriptors};

/// A permit for one descriptor of the class [`Link`](Class::Link), returned on drop.
#[derive(Debug)]
pub struct Permit(Arc<Descriptors>);

impl Permit {
    /// Takes a permit, if one is available.
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
