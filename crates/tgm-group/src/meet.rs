//! How the processes of a group find each other.
//!
//! Process 0 listens. Every other one says hello there, with the port that it listens on itself; when all have come, each is told its rank and the
//! address of the process before it in the chain, and connects to that. Process 1's neighbour is process 0, whose connection it has already.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::link::{Link, Neighbour, keep_alive};
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
    /// Where it called from.
    from: SocketAddr,
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

    /// Waits until there are `size` processes, this one included, for as long as it takes. `came` is told how many there are whenever one
    /// comes, and where from.
    ///
    /// # Errors
    /// When the processes cannot reach each other, or one leaves just when all have come.
    pub fn wait_for(self, size: usize, came: &mut dyn FnMut(usize, SocketAddr)) -> Result<Group, GroupError> {
        let mut guests: Vec<Guest> = Vec::new();
        while guests.len() + 1 < size {
            let (stream, from) = match self.listener.accept() {
                Ok(caller) => caller,
                // It hung up before it was answered.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error.into()),
            };
            match greet(stream, from) {
                Ok(guest) => {
                    guests.retain(Guest::is_here);
                    guests.push(guest);
                    one_network(&guests)?;
                    came(guests.len() + 1, from);
                }
                Err(error) => tracing::warn!("{from} wanted to join: {error}"),
            }
        }
        for (number, guest) in guests.iter().enumerate() {
            let before = number.checked_sub(1).map(|before| guests[before].address);
            tell(&guest.stream, number + 1, guests.len() + 1, before)
                .map_err(|source| guest.as_neighbour(number + 1).gone(source))?;
        }
        let size = guests.len() + 1;
        let after = guests
            .into_iter()
            .next()
            .map(|first| Link::new(first.as_neighbour(1), first.stream))
            .transpose()?;
        Ok(Group { rank: 0, size, before: None, after })
    }
}

impl Guest {
    /// Whether it still waits. One that has left, and may have come again, must not be counted.
    fn is_here(&self) -> bool {
        let here = || -> io::Result<bool> {
            self.stream.set_nonblocking(true)?;
            let heard = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            // Nothing to hear is what a waiting process has to say.
            Ok(matches!(heard, Err(error) if error.kind() == ErrorKind::WouldBlock))
        };
        here().unwrap_or(false)
    }

    fn as_neighbour(&self, rank: usize) -> Neighbour {
        Neighbour { rank, address: self.from }
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
        keep_alive(&host)?;
        let (here, there) = (host.local_addr()?, host.peer_addr().map_err(reach)?);
        let own = TcpListener::bind(with_port(here, 0))?;
        say_hello(&host, own.local_addr()?.port()).map_err(reach)?;
        let Seat { rank, size, before } = hear(&host, address)?;
        let (place, before) = match before {
            None => (there, host),
            Some(place) => {
                let stream = TcpStream::connect_timeout(&place, NEIGHBOUR)
                    .and_then(|stream| (&stream).write_all(MAGIC).map(|()| stream))
                    .map_err(|source| GroupError::Reach { address: place.to_string(), source })?;
                keep_alive(&stream)?;
                (place, stream)
            }
        };
        let after = if rank + 1 < size { Some(accept_neighbour(&own, rank + 1)?) } else { None };
        let before = Link::new(Neighbour { rank: rank - 1, address: place }, before)?;
        Ok(Self { rank, size, before: Some(before), after })
    }
}

/// The same machine at another port. An IPv4 address in IPv6's clothes is an IPv4 address: not every machine has both.
fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, port),
        // Keeps the scope of a link's own address.
        IpAddr::V6(_) => {
            let mut address = address;
            address.set_port(port);
            address
        }
    }
}

/// What a process is told when all have come.
struct Seat {
    rank: usize,
    size: usize,
    /// None: the connection that this is heard on.
    before: Option<SocketAddr>,
}

/// The first process, its machine's name or its network may not be there yet.
fn connect_patiently(address: &str) -> io::Result<TcpStream> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() != ErrorKind::InvalidInput && begun.elapsed() < PATIENCE => {
                std::thread::sleep(AGAIN);
            }
            outcome => return outcome,
        }
    }
}

fn say_hello(mut host: &TcpStream, port: u16) -> io::Result<()> {
    let mut hello = MAGIC.to_vec();
    hello.extend(port.to_le_bytes());
    hello.push(VERSION.len() as u8);
    hello.extend(VERSION.as_bytes());
    host.write_all(&hello)
}

/// Reads what [`say_hello`] wrote.
fn greet(stream: TcpStream, from: SocketAddr) -> Result<Guest, GroupError> {
    let stranger = |what: String| GroupError::Stranger { address: from.to_string(), what };
    keep_alive(&stream)?;
    let deadline = Instant::now() + HELLO;
    let mut head = [0; 11];
    let told = read_before(deadline, &stream, &mut head);
    if told.is_err() || head[..8] != *MAGIC {
        return Err(stranger("not a process of tgm".into()));
    }
    let mut version = vec![0; usize::from(head[10])];
    read_before(deadline, &stream, &mut version)?;
    if version != VERSION.as_bytes() {
        let theirs = String::from_utf8_lossy(&version).into_owned();
        // Hears why before the connection ends.
        let _ = tell(&stream, 0, 0, None);
        return Err(stranger(format!("is of version {theirs}, and this is {VERSION}")));
    }
    let port = u16::from_le_bytes([head[8], head[9]]);
    Ok(Guest { stream, from, address: with_port(from, port) })
}

/// Fills `bytes`, however slowly they drip, before the deadline.
fn read_before(deadline: Instant, mut stream: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => bytes = &mut bytes[read..],
        }
    }
    stream.set_read_timeout(None)
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

/// Tells a process its [`Seat`]. A size of 0 says that it is of another version.
fn tell(mut guest: &TcpStream, rank: usize, size: usize, before: Option<SocketAddr>) -> io::Result<()> {
    let before = before.map_or(String::new(), |address| address.to_string());
    let mut seat = MAGIC.to_vec();
    seat.extend((size as u32).to_le_bytes());
    seat.extend((rank as u32).to_le_bytes());
    seat.push(before.len() as u8);
    seat.extend(before.as_bytes());
    guest.write_all(&seat)
}

/// Waits for what [`tell`] writes, as long as it takes for all to come.
fn hear(mut host: &TcpStream, address: &str) -> Result<Seat, GroupError> {
    let stranger = |what: &str| GroupError::Stranger { address: address.into(), what: what.into() };
    let refused = |source| GroupError::Refused { address: address.into(), source };
    let mut magic = [0; 8];
    host.read_exact(&mut magic).map_err(refused)?;
    if magic != *MAGIC {
        return Err(stranger("not a process of tgm"));
    }
    let mut number = || -> Result<usize, GroupError> {
        let mut bytes = [0; 4];
        host.read_exact(&mut bytes).map_err(refused)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let (size, rank) = (number()?, number()?);
    if size == 0 {
        return Err(stranger(&format!("the first process is not of this version, {VERSION}")));
    }
    let mut length = [0];
    host.read_exact(&mut length).map_err(refused)?;
    let mut before = vec![0; usize::from(length[0])];
    host.read_exact(&mut before).map_err(refused)?;
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
            Ok((stream, address)) => {
                stream.set_nonblocking(false)?;
                let mut magic = [0; 8];
                if read_before(Instant::now() + HELLO, &stream, &mut magic).is_ok() && magic == *MAGIC {
                    keep_alive(&stream)?;
                    return Link::new(Neighbour { rank, address }, stream);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN / 20),
            Err(error) => return Err(error.into()),
        }
    }
    Err(GroupError::Missing { rank, seconds: NEIGHBOUR.as_secs() })
}
