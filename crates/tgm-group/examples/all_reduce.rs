//! How long it takes to add up so many values over so many processes, here threads that talk over this machine's own network.
//!
//! `cargo run --release -p tgm-group --example all_reduce -- 94000000 2`

use std::time::Instant;

use tgm_group::{Group, GroupError, Host};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let values: usize = arguments.next().unwrap_or("94000000".into()).parse()?;
    let processes: usize = arguments.next().unwrap_or("2".into()).parse()?;
    let host = Host::listen("127.0.0.1:0")?;
    let address = host.address()?.to_string();
    let others: Vec<_> = (1..processes)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || seconds(Group::join(&address)?, values))
        })
        .collect();
    let best = seconds(host.wait_for(processes, &mut |_, _| {})?, values)?;
    for other in others {
        other.join().map_err(|_| "a process panicked")??;
    }
    let rate = 8.0 * values as f64 / best / 1e9;
    eprintln!(
        "{values} values, {processes} processes: {best:.3} s, {rate:.2} GB/s over each connection, both directions together"
    );
    Ok(())
}

/// The least of five rounds.
fn seconds(mut group: Group, values: usize) -> Result<f64, GroupError> {
    let mut own = vec![1.0f32; values];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        group.all_reduce([own.as_mut_slice()])?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(best)
}
