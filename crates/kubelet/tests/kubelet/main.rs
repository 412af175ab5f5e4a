//! The kubelet from outside: an API in memory on one side, a runtime without processes on the
//! other, and a clock that the tests move.

mod pods;
mod restart;
mod server;
mod support;
