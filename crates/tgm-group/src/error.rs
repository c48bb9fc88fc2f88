//! What can go wrong between processes.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why processes do not come, or stay, together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The address is wrong, of another machine, or taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody listens there, or a firewall stands between.
    #[error("cannot reach {address}: {source}")]
    Reach {
        /// As given, or of the process before this one in the chain.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// What listens there is no group, or not of this version.
    #[error("{address}: {what}")]
    Stranger {
        /// As given.
        address: String,
        /// What it is instead.
        what: String,
    },
    /// One process was reached by an address of its machine alone, and another one by that of a network.
    #[error(
        "{local} joined by an address that other machines cannot reach, and {remote} from another machine: join by the same address \
         everywhere"
    )]
    Loopback {
        /// The address of the first.
        local: String,
        /// And of the second.
        remote: String,
    },
    /// The first process ended the connection before it had told this one its rank.
    #[error(
        "{address} closed the connection before the group was complete ({source}): it has ended, has all its processes already, or is no \
         tgm"
    )]
    Refused {
        /// As given.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The next process did not connect in time.
    #[error(
        "process {rank} did not connect to this one within {seconds} s: a firewall may stand between them"
    )]
    Missing {
        /// Its rank.
        rank: usize,
        /// How long this one waited.
        seconds: u64,
    },
    /// A process ended, or its machine or the network did.
    #[error(
        "process {rank} at {address} is gone ({source}): it has ended, perhaps because one behind it has; what it wrote itself says why"
    )]
    Gone {
        /// The rank of the neighbour that is gone. It may itself have ended because another one did.
        rank: usize,
        /// Where it was connected from, or to.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A process called something else than this one: a defect of the program.
    #[error("process {rank} is at another point of the program")]
    OutOfStep {
        /// Its rank.
        rank: usize,
    },
    /// The system refuses a connection's settings or a thread.
    #[error(transparent)]
    System(#[from] io::Error),
}
