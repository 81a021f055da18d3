//! The descriptor that a connection to another daemon uses, counted among those of all connections.

use std::sync::Arc;

use crate::base::descriptors::Class;
use crate::daemon::Context;

/// The right to one descriptor, as long as it lives.
#[derive(Debug)]
pub struct Place(Arc<Context>);

impl Place {
    /// Takes one, if there is room.
    pub fn take(context: &Arc<Context>) -> Option<Place> {
        context.descriptors.reserve(Class::Link).ok()?;
        Some(Place(Arc::clone(context)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.descriptors.release(Class::Link);
    }
}
