//! How the processes of a group find each other.
//!
//! Process 0 listens. Every other one says hello there, with the port that it listens on itself; when all have come, each is told its rank and the
//! address of the process before it in the chain, and connects to that. Process 1's neighbour is process 0, whose connection it has already.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::link::Link;
use crate::{Group, GroupError};

/// What a connection of this program begins with.
const MAGIC: &[u8; 8] = b"tgmgroup";
/// Both sides must send and receive the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// One who says nothing is not a process of ours.
const HELLO: Duration = Duration::from_secs(10);
/// How long neighbours wait for each other once all processes are there.
const NEIGHBOUR: Duration = Duration::from_secs(60);
/// How long a process that came before the first one asks again.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);

/// The first process before the others have come.
#[derive(Debug)]
pub struct Host {
    listener: TcpListener,
}

/// A process that has said hello.
struct Guest {
    stream: TcpStream,
    /// Where it listens.
    address: SocketAddr,
}

impl Host {
    /// Listens on `HOST:PORT`; port 0 is one that is free.
    ///
    /// # Errors
    /// [`GroupError::Listen`].
    pub fn listen(address: &str) -> Result<Self, GroupError> {
        let listener = TcpListener::bind(address)
            .map_err(|source| GroupError::Listen { address: address.into(), source })?;
        Ok(Self { listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> Result<SocketAddr, GroupError> {
        Ok(self.listener.local_addr()?)
    }

    /// Waits until there are `size` processes, this one included. `came` is told how many there are whenever one comes.
    ///
    /// # Errors
    /// When a process that came is gone before all have come, or they cannot reach each other.
    pub fn wait_for(self, size: usize, came: &mut dyn FnMut(usize)) -> Result<Group, GroupError> {
        let mut guests = Vec::new();
        while guests.len() + 1 < size {
            let (stream, address) = self.listener.accept()?;
            match greet(stream, address) {
                Ok(guest) => {
                    guests.push(guest);
                    came(guests.len() + 1);
                }
                Err(error) => tracing::warn!("{address} wanted to join: {error}"),
            }
        }
        one_network(&guests)?;
        for (number, guest) in guests.iter().enumerate() {
            let before = number.checked_sub(1).map(|before| guests[before].address);
            let rank = number + 1;
            tell(&guest.stream, rank, size, before).map_err(|source| GroupError::Gone { rank, source })?;
        }
        let after = guests.into_iter().next().map(|first| Link::new(1, first.stream)).transpose()?;
        Ok(Group { rank: 0, size, before: None, after })
    }
}

impl Group {
    /// Joins the group whose first process listens on `HOST:PORT`; asks for a minute when it does not listen yet. Returns when all
    /// processes have come.
    ///
    /// # Errors
    /// When there is no group, or it is of another version, or the process before cannot be reached.
    pub fn join(address: &str) -> Result<Self, GroupError> {
        let reach = |source| GroupError::Reach { address: address.into(), source };
        let host = connect_patiently(address).map_err(reach)?;
        let own = TcpListener::bind(SocketAddr::new(host.local_addr()?.ip(), 0))?;
        say_hello(&host, own.local_addr()?.port()).map_err(reach)?;
        let Seat { rank, size, before } = hear(&host, address)?;
        let before = match before {
            None => host,
            Some(place) => TcpStream::connect_timeout(&place, NEIGHBOUR)
                .and_then(|stream| (&stream).write_all(MAGIC).map(|()| stream))
                .map_err(|source| GroupError::Reach { address: place.to_string(), source })?,
        };
        let after = if rank + 1 < size { Some(accept_neighbour(&own, rank + 1)?) } else { None };
        Ok(Self { rank, size, before: Some(Link::new(rank - 1, before)?), after })
    }
}

/// What a process is told when all have come.
struct Seat {
    rank: usize,
    size: usize,
    /// None: the connection that this is heard on.
    before: Option<SocketAddr>,
}

fn connect_patiently(address: &str) -> std::io::Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && begun.elapsed() < PATIENCE => {
                std::thread::sleep(AGAIN);
            }
            outcome => return outcome,
        }
    }
}

fn say_hello(mut host: &TcpStream, port: u16) -> std::io::Result<()> {
    let mut hello = MAGIC.to_vec();
    hello.extend(port.to_le_bytes());
    hello.push(VERSION.len() as u8);
    hello.extend(VERSION.as_bytes());
    host.write_all(&hello)
}

/// Reads what [`say_hello`] wrote.
fn greet(stream: TcpStream, from: SocketAddr) -> Result<Guest, GroupError> {
    let stranger = |what: String| GroupError::Stranger { address: from.to_string(), what };
    stream.set_read_timeout(Some(HELLO))?;
    let mut head = [0; 11];
    let told = (&stream).read_exact(&mut head);
    if told.is_err() || head[..8] != *MAGIC {
        return Err(stranger("not a process of tgm".into()));
    }
    let mut version = vec![0; usize::from(head[10])];
    (&stream).read_exact(&mut version)?;
    if version != VERSION.as_bytes() {
        let theirs = String::from_utf8_lossy(&version).into_owned();
        // Hears why before the connection ends.
        let _ = (&stream).write_all(&[0; 4]);
        return Err(stranger(format!("is of version {theirs}, and this is {VERSION}")));
    }
    let port = u16::from_le_bytes([head[8], head[9]]);
    Ok(Guest { stream, address: SocketAddr::new(from.ip(), port) })
}

/// A process that was reached at 127.0.0.1 cannot be reached there from another machine.
fn one_network(guests: &[Guest]) -> Result<(), GroupError> {
    let local = guests.iter().find(|guest| is_loopback(guest.address.ip()));
    let remote = guests.iter().find(|guest| !is_loopback(guest.address.ip()));
    match (local, remote) {
        (Some(local), Some(remote)) => {
            Err(GroupError::Loopback { local: local.address.to_string(), remote: remote.address.to_string() })
        }
        _ => Ok(()),
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Tells a process its [`Seat`]. A size of 0 would be another version.
fn tell(mut guest: &TcpStream, rank: usize, size: usize, before: Option<SocketAddr>) -> std::io::Result<()> {
    let before = before.map_or(String::new(), |address| address.to_string());
    let mut seat = (size as u32).to_le_bytes().to_vec();
    seat.extend((rank as u32).to_le_bytes());
    seat.push(before.len() as u8);
    seat.extend(before.as_bytes());
    guest.write_all(&seat)
}

/// Waits for what [`tell`] writes, as long as it takes for all to come.
fn hear(mut host: &TcpStream, address: &str) -> Result<Seat, GroupError> {
    let stranger = |what: &str| GroupError::Stranger { address: address.into(), what: what.into() };
    let gone = |source| GroupError::Gone { rank: 0, source };
    let mut number = [0; 4];
    host.read_exact(&mut number).map_err(gone)?;
    let size = u32::from_le_bytes(number) as usize;
    if size == 0 {
        return Err(stranger(&format!("the first process is not of this version, {VERSION}")));
    }
    host.read_exact(&mut number).map_err(gone)?;
    let rank = u32::from_le_bytes(number) as usize;
    let mut length = [0];
    host.read_exact(&mut length).map_err(gone)?;
    let mut before = vec![0; usize::from(length[0])];
    host.read_exact(&mut before).map_err(gone)?;
    let text = String::from_utf8_lossy(&before);
    let before = match text.is_empty() {
        true => None,
        false => Some(text.parse().map_err(|_| stranger("not a process of tgm"))?),
    };
    if rank == 0 || rank >= size {
        return Err(stranger("not a process of tgm"));
    }
    Ok(Seat { rank, size, before })
}

/// The connection of the next process; others that come are sent away.
fn accept_neighbour(own: &TcpListener, rank: usize) -> Result<Link, GroupError> {
    own.set_nonblocking(true)?;
    let begun = Instant::now();
    while begun.elapsed() < NEIGHBOUR {
        match own.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(HELLO))?;
                let mut magic = [0; 8];
                if (&stream).read_exact(&mut magic).is_ok() && magic == *MAGIC {
                    return Link::new(rank, stream);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN / 20),
            Err(error) => return Err(error.into()),
        }
    }
    Err(GroupError::Missing { rank, seconds: NEIGHBOUR.as_secs() })
}
