//! The kubelet from outside: an API in memory on one side, a runtime without processes on the
//! other, and a clock that the tests move.

#[cfg(test)]
mod pods;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod server;
#[cfg(test)]
mod support;
