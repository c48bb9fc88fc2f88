//! A connection to a neighbour.

use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::GroupError;

/// A machine that is gone without a word is noticed after some two minutes.
const SILENT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASKS: u32 = 6;

/// Both directions of a connection, each with a handle of its own: they work at the same time.
#[derive(Debug)]
pub(crate) struct Link {
    /// The rank of the neighbour.
    rank: usize,
    pub receive: Receive,
    pub send: Send,
}

/// What comes from a neighbour.
#[derive(Debug)]
pub(crate) struct Receive {
    rank: usize,
    stream: TcpStream,
}

/// What goes to a neighbour.
#[derive(Debug)]
pub(crate) struct Send {
    rank: usize,
    stream: BufWriter<TcpStream>,
}

impl Link {
    /// A connection to the process of this rank.
    pub fn new(rank: usize, stream: TcpStream) -> Result<Self, GroupError> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        keep_alive(&stream)?;
        let receive = Receive { rank, stream: stream.try_clone()? };
        Ok(Self { rank, receive, send: Send { rank, stream: BufWriter::with_capacity(1 << 16, stream) } })
    }

    /// The rank of the neighbour.
    pub fn rank(&self) -> usize {
        self.rank
    }
}

impl Receive {
    /// Fills `bytes`.
    pub fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), GroupError> {
        self.stream.read_exact(bytes).map_err(|source| GroupError::Gone { rank: self.rank, source })
    }

    /// A message of any length.
    pub fn message(&mut self) -> Result<Vec<u8>, GroupError> {
        let length = self.number()?;
        let mut message = Vec::new();
        let read = (&mut self.stream).take(length).read_to_end(&mut message);
        match read {
            Ok(read) if read as u64 == length => Ok(message),
            Ok(_) => {
                Err(GroupError::Gone { rank: self.rank, source: std::io::ErrorKind::UnexpectedEof.into() })
            }
            Err(source) => Err(GroupError::Gone { rank: self.rank, source }),
        }
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, GroupError> {
        let mut bytes = [0; 8];
        self.bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Send {
    /// Sends, some time before the next [`Self::flush`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), GroupError> {
        self.stream.write_all(bytes).map_err(|source| GroupError::Gone { rank: self.rank, source })
    }

    /// Sends a message with its length.
    pub fn message(&mut self, message: &[u8]) -> Result<(), GroupError> {
        self.number(message.len() as u64)?;
        self.bytes(message)
    }

    /// Sends a number.
    pub fn number(&mut self, number: u64) -> Result<(), GroupError> {
        self.bytes(&number.to_le_bytes())
    }

    /// Sends what waits to be sent.
    pub fn flush(&mut self) -> Result<(), GroupError> {
        self.stream.flush().map_err(|source| GroupError::Gone { rank: self.rank, source })
    }
}

/// While one process writes a checkpoint or probes, the others may wait for hours: only one that is gone must be noticed.
fn keep_alive(stream: &TcpStream) -> Result<(), GroupError> {
    use rustix::net::sockopt;
    let set = || -> rustix::io::Result<()> {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, SILENT)?;
        sockopt::set_tcp_keepintvl(stream, ASK_AGAIN)?;
        sockopt::set_tcp_keepcnt(stream, ASKS)
    };
    Ok(set().map_err(std::io::Error::from)?)
}
