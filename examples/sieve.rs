//! The prime sieve that is the classic first program with channels in Go, with processes for goroutines.
//!
//! A process generates 2, 3, 4 and so on. For each prime there is one more process, which lets
//! pass what that prime does not divide; what arrives at the end of the chain is the next prime.
//!
//! Nothing tells the processes to stop. When the last receiver is dropped the last process learns, by its
//! next send, that there is no receiver; it returns, and drops its own receiver; and so on up the chain.
//!
//!     cargo run --example sieve -- 25

use std::error::Error;

use wormhole::{Receiver, Sender, channel, spawn};

fn generate(numbers: Sender<u32>) {
    for number in 2.. {
        if numbers.send(number).is_err() {
            return;
        }
    }
}

fn filter((prime, numbers, rest): (u32, Receiver<u32>, Sender<u32>)) {
    for number in numbers.iter().flatten() {
        if number % prime != 0 && rest.send(number).is_err() {
            return;
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 25,
    };
    let (generated, mut numbers) = channel()?;
    let mut children = vec![spawn(generated, generate)?];
    for _ in 0..count {
        let prime = numbers.recv()?;
        println!("{prime}");
        let (passed, rest) = channel()?;
        children.push(spawn((prime, numbers, passed), filter)?);
        numbers = rest;
    }
    drop(numbers);
    for child in children {
        child.join()?;
    }
    Ok(())
}
