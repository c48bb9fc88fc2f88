//! A connection to a neighbour.

use std::io::{self, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::GroupError;

/// A machine that is gone without a word is noticed after some two minutes: by questions when nothing is on its way, and else by what it
/// does not acknowledge.
const SILENT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASKS: u32 = 6;
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub rank: usize,
    pub address: SocketAddr,
}

impl Neighbour {
    /// What to say when it does not answer.
    pub fn gone(self, source: io::Error) -> GroupError {
        GroupError::Gone { rank: self.rank, address: self.address, source }
    }
}

/// Both directions of a connection, each with a handle of its own: they work at the same time.
#[derive(Debug)]
pub(crate) struct Link {
    pub receive: Receive,
    pub send: Send,
}

/// What comes from a neighbour.
#[derive(Debug)]
pub(crate) struct Receive {
    neighbour: Neighbour,
    stream: TcpStream,
}

/// What goes to a neighbour.
#[derive(Debug)]
pub(crate) struct Send {
    neighbour: Neighbour,
    stream: BufWriter<TcpStream>,
}

impl Link {
    /// A connection to a neighbour.
    pub fn new(neighbour: Neighbour, stream: TcpStream) -> Result<Self, GroupError> {
        stream.set_nodelay(true)?;
        let receive = Receive { neighbour, stream: stream.try_clone()? };
        let send = Send { neighbour, stream: BufWriter::with_capacity(1 << 16, stream) };
        Ok(Self { receive, send })
    }

    /// Ends the connection: the neighbour notices at once.
    pub fn close(&self) {
        // One that has ended already needs no end.
        let _ = self.receive.stream.shutdown(Shutdown::Both);
    }
}

impl Receive {
    /// Fills `bytes`.
    pub fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), GroupError> {
        self.stream.read_exact(bytes).map_err(|source| self.neighbour.gone(source))
    }

    /// A message of any length.
    pub fn message(&mut self) -> Result<Vec<u8>, GroupError> {
        let length = self.number()?;
        let mut message = Vec::new();
        let read = (&mut self.stream).take(length).read_to_end(&mut message);
        match read {
            Ok(read) if read as u64 == length => Ok(message),
            Ok(_) => Err(self.neighbour.gone(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.neighbour.gone(source)),
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
        self.stream.write_all(bytes).map_err(|source| self.neighbour.gone(source))
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
        self.stream.flush().map_err(|source| self.neighbour.gone(source))
    }
}

/// Lets the system notice an end that is gone. While one process writes a checkpoint or probes, the others may wait for hours; that is not
/// mistaken for it, because nothing is sent to a process that is not ready to read ([`Group`](crate::Group)'s calls begin so).
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, ASK_AGAIN)?;
    sockopt::set_tcp_keepcnt(stream, ASKS)?;
    // Elsewhere the system's own limit, a quarter of an hour or so, is all there is for data on its way.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED.as_millis() as u32)?;
    Ok(())
}
