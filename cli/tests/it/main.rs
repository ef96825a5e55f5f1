//! wormholectl as scripts use it: real processes, pipes, terminals and signals.

mod calling;
mod conformance;
mod handing;
mod hostile;
mod receiving;
mod recipes;
mod sending;
mod signals;
mod support;
mod tapping;
mod terminal;
