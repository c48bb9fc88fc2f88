//! Processes that train together.
//!
//! Data-parallel training needs little of a network: once a step the gradients of all processes are added up, and a few numbers go
//! round. That is done here along a *chain*: process 0 sends its values to process 1, which adds its own and sends the sum to process 2; the
//! last one has the sum of all and sends it back the same way. The values are cut into chunks, so that all connections work at the same
//! time in both directions; whatever the number of processes, each sends and receives every value at most twice, as in a ring. Unlike in a ring every
//! value is added in one order, that of the ranks: the same processes on the same data get the same bits, in all of them.
//!
//! There is no encryption and no password: a group belongs into a network whose machines trust each other, like those of MPI and
//! `torch.distributed`.
//!
//! ```
//! use tgm_group::{Group, Host};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::listen("127.0.0.1:0")?;
//! let address = host.address()?.to_string();
//! let other = std::thread::spawn(move || -> Result<f32, tgm_group::GroupError> {
//!     let mut group = Group::join(&address)?;
//!     let mut values = [2.0];
//!     group.all_reduce([&mut values[..]])?;
//!     Ok(values[0])
//! });
//! let mut group = host.wait_for(2, &mut |_, _| {})?;
//! let mut values = [1.0];
//! group.all_reduce([&mut values[..]])?;
//! assert_eq!((values[0], other.join().unwrap()?), (3.0, 3.0));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod collective;
mod error;
mod link;
mod meet;

pub use error::GroupError;
pub use meet::Host;

use link::Link;

/// The processes of a run, seen from one of them.
///
/// Every process must make the same calls in the same order. When one of them is gone, the calls of all others fail; a call that failed
/// is the last one of its group.
#[derive(Debug)]
pub struct Group {
    rank: usize,
    size: usize,
    /// To the process of one rank less; none in the first.
    before: Option<Link>,
    /// To the process of one rank more; none in the last.
    after: Option<Link>,
}

impl Group {
    /// A process by itself: every call returns at once.
    #[must_use]
    pub fn alone() -> Self {
        Self { rank: 0, size: 1, before: None, after: None }
    }

    /// Which of the processes this is, from 0 on.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}
