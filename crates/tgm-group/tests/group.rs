//! Processes, here threads, that meet on this machine and compute together.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use tgm_group::{Group, GroupError, Host};

/// Runs `body` in `size` processes; what it returned, by rank.
fn with_group<T: Send + 'static>(
    size: usize,
    body: impl Fn(&mut Group) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap().to_string();
    let others: Vec<JoinHandle<(usize, T)>> = (1..size)
        .map(|_| {
            let (address, body) = (address.clone(), body.clone());
            std::thread::spawn(move || {
                let mut group = Group::join(&address).unwrap();
                (group.rank(), body(&mut group))
            })
        })
        .collect();
    let mut group = host.wait_for(size, &mut |_, _| {}).unwrap();
    let mut all = vec![(group.rank(), body(&mut group))];
    all.extend(others.into_iter().map(|other| other.join().unwrap()));
    all.sort_by_key(|(rank, _)| *rank);
    assert!(all.iter().map(|(rank, _)| *rank).eq(0..size));
    all.into_iter().map(|(_, value)| value).collect()
}

/// Values of very different size, so that another order of adding them shows.
fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7 + rank * 31) as f32).sin() * 10f32.powi((i + rank) as i32 % 7 - 3)).collect()
}

#[test]
fn every_process_gets_the_sum_in_the_order_of_the_ranks_to_the_bit() {
    for size in [1, 2, 3, 5] {
        // More than one chunk, and slices that are shorter than one.
        let lengths = [3usize, 70_000, 0, 200_001];
        let sums = with_group(size, move |group| {
            let mut own: Vec<Vec<f32>> = lengths.map(|len| values(group.rank(), len)).into();
            group.all_reduce(own.iter_mut().map(Vec::as_mut_slice)).unwrap();
            own
        });
        for own in sums {
            for (len, own) in lengths.into_iter().zip(own) {
                let mut expected = values(0, len);
                for rank in 1..size {
                    expected.iter_mut().zip(values(rank, len)).for_each(|(sum, value)| *sum += value);
                }
                assert!(
                    own.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{size} processes"
                );
            }
        }
    }
}

#[test]
fn every_process_gets_all_messages_in_the_order_of_the_ranks() {
    for size in [1, 2, 4] {
        let gathered = with_group(size, |group| {
            let own = vec![group.rank() as u8; 3 * group.rank()];
            [group.all_gather(&own).unwrap(), group.all_gather(b"again").unwrap()]
        });
        for [first, again] in gathered {
            let expected: Vec<Vec<u8>> = (0..size).map(|rank| vec![rank as u8; 3 * rank]).collect();
            assert_eq!(first, expected);
            assert_eq!(again, vec![b"again".to_vec(); size]);
        }
    }
}

#[test]
fn the_first_process_tells_all_others() {
    for told in with_group(3, |group| group.broadcast(vec![group.rank() as u8; 100_000]).unwrap()) {
        assert_eq!(told, vec![0; 100_000]);
    }
}

#[test]
fn when_a_process_is_gone_the_others_are_told() {
    let outcomes = with_group(3, |group| {
        if group.rank() == 1 {
            // Its end of both connections closes.
            *group = Group::alone();
            return None;
        }
        let mut values = vec![1.0; 1 << 20];
        Some(group.all_reduce([&mut values[..]]).unwrap_err())
    });
    assert!(matches!(outcomes[0], Some(GroupError::Gone { rank: 1, .. })), "{outcomes:?}");
    assert!(matches!(outcomes[2], Some(GroupError::Gone { rank: 1, .. })), "{outcomes:?}");
}

#[test]
fn processes_at_different_points_of_the_program_notice() {
    let outcomes = with_group(2, |group| match group.rank() {
        0 => group.all_gather(b"").err().map(|error| error.to_string()),
        _ => group.all_reduce([&mut [1.0f32][..]]).err().map(|error| error.to_string()),
    });
    assert_eq!(outcomes[1].as_deref(), Some("process 0 is at another point of the program"));
}

#[test]
fn strangers_are_sent_away_and_the_group_still_meets() {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap();
    let member = std::thread::spawn(move || {
        // A browser, one who leaves at once, and a process of another version.
        TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(TcpStream::connect(address).unwrap());
        let mut other = TcpStream::connect(address).unwrap();
        other.write_all(b"tgmgroup\x01\x00\x050.0.0").unwrap();
        let mut answer = Vec::new();
        other.read_to_end(&mut answer).unwrap();
        assert_eq!(&answer[..12], b"tgmgroup\0\0\0\0", "a group of none is of another version");
        Group::join(&address.to_string()).unwrap().all_gather(b"here").unwrap()
    });
    let mut counts = Vec::new();
    let mut group = host.wait_for(2, &mut |count, _| counts.push(count)).unwrap();
    group.all_gather(b"host").unwrap();
    assert_eq!(member.join().unwrap(), [b"host".to_vec(), b"here".to_vec()]);
    assert_eq!(counts, [2]);
}

#[test]
fn an_address_that_is_taken_or_wrong_is_named() {
    let taken = Host::listen("127.0.0.1:0").unwrap();
    let address = taken.address().unwrap().to_string();
    assert!(Host::listen(&address).unwrap_err().to_string().contains(&address));
    assert!(Host::listen("nowhere").unwrap_err().to_string().contains("cannot listen on nowhere"));
    assert!(Group::join("nowhere").unwrap_err().to_string().contains("cannot reach nowhere"));
}

#[test]
fn a_process_that_left_while_others_are_awaited_is_not_counted() {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap();
    let others = std::thread::spawn(move || {
        let mut left = TcpStream::connect(address).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let hello = [&b"tgmgroup\x01\x00"[..], &[version.len() as u8], version.as_bytes()].concat();
        left.write_all(&hello).unwrap();
        drop(left);
        let second = std::thread::spawn(move || Group::join(&address.to_string()).unwrap().all_gather(b"b"));
        let first = Group::join(&address.to_string()).unwrap().all_gather(b"b");
        [first.unwrap(), second.join().unwrap().unwrap()]
    });
    let mut counts = Vec::new();
    let mut group = host.wait_for(3, &mut |count, _| counts.push(count)).unwrap();
    let all = [b"a".to_vec(), b"b".to_vec(), b"b".to_vec()];
    assert_eq!(group.all_gather(b"a").unwrap(), all);
    assert_eq!(others.join().unwrap(), [all.clone(), all]);
    assert_eq!(counts, [2, 2, 3]);
}

#[test]
fn what_is_no_group_is_named() {
    // A server that speaks first, as mail and SSH do, and one that hangs up.
    for (says, told) in
        [(&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], "not a process of tgm"), (b"", "closed the connection")]
    {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let serving = std::thread::spawn(move || {
            let mut caller = server.accept().unwrap().0;
            caller.write_all(says).unwrap();
            // The hello is read: what is closed with something unread is reset, and the answer may be lost.
            caller.read_exact(&mut [0; 16]).unwrap();
        });
        let error = Group::join(&address).unwrap_err().to_string();
        assert!(error.contains(told) && error.contains(&address), "{error}");
        serving.join().unwrap();
    }
}

#[test]
fn after_an_error_a_group_has_ended_and_its_neighbours_notice() {
    let outcomes = with_group(3, |group| {
        let first = match group.rank() {
            1 => group.all_reduce([&mut [1.0f32][..]]).err(),
            _ => group.all_gather(b"").err(),
        };
        (first.is_some(), group.all_gather(b"").is_err())
    });
    assert_eq!(outcomes, [(true, true); 3]);
}

/// Nothing is sent to a process that does not read yet, so that waiting for a slow one is told from losing one.
#[test]
fn a_call_begins_when_all_processes_make_it() {
    let begun = std::time::Instant::now();
    let waits = with_group(2, move |group| {
        if group.rank() == 1 {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        group.broadcast(vec![0; 100]).unwrap();
        begun.elapsed().as_millis()
    });
    assert!(waits.iter().all(|&wait| wait >= 300), "{waits:?}");
}
