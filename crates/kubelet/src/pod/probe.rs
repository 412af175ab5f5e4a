//! Probes: how often to check, and when a row of results becomes a verdict (pure), and the loop
//! that does it for one probe of one container.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};

use super::handler::{Check, Target};
use super::machine::ProbeKind;

/// Counts results in a row.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
    verdict: Option<bool>,
}

impl Counter {
    pub(crate) fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            in_a_row: 0,
            verdict: None,
        }
    }

    /// Notes a result; the answer is the verdict if it is a new one.
    pub(crate) fn record(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.in_a_row += 1;
        } else {
            self.last = Some(success);
            self.in_a_row = 1;
        }
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.in_a_row < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

/// The probe of a container of one kind.
pub(crate) fn of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// What a probe does.
pub(crate) fn check(probe: &Probe) -> Option<Check> {
    if let Some(exec) = &probe.exec {
        return Some(Check::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = &probe.http_get {
        return Some(Check::Http(http.clone()));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Some(Check::Tcp(tcp.clone()));
    }
    probe.grpc.clone().map(Check::Grpc)
}

/// What a lifecycle hook does.
pub(crate) fn hook(handler: &LifecycleHandler) -> Option<Check> {
    if let Some(exec) = &handler.exec {
        return Some(Check::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(http) = &handler.http_get {
        return Some(Check::Http(http.clone()));
    }
    if let Some(tcp) = &handler.tcp_socket {
        return Some(Check::Tcp(tcp.clone()));
    }
    let sleep = handler.sleep.as_ref()?;
    Some(Check::Sleep(Duration::from_secs(
        sleep.seconds.max(0).unsigned_abs(),
    )))
}

/// Probes until the verdict is final (startup) or for ever. `result` hears every result: the
/// message of a failure, and the verdict if it is a new one.
pub(crate) async fn run(
    target: Target,
    probe: Probe,
    kind: ProbeKind,
    mut result: impl FnMut(Result<(), String>, Option<bool>) + Send,
) {
    let Some(check) = check(&probe) else { return };
    let seconds = |value: Option<i32>, default: u64| {
        let given = value.and_then(|v| u64::try_from(v).ok());
        Duration::from_secs(given.unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let mut counter = Counter::new(&probe);
    target
        .clock
        .sleep(seconds(probe.initial_delay_seconds, 0))
        .await;
    loop {
        let outcome = target.run(&check, Some(timeout)).await;
        let verdict = counter.record(outcome.is_ok());
        result(outcome, verdict);
        if kind == ProbeKind::Startup && verdict.is_some() {
            return;
        }
        target.clock.sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counter(success: i32, failure: i32) -> Counter {
        Counter::new(&Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        })
    }

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row_and_is_told_once() {
        let mut counter = counter(2, 3);
        let results = [
            true, true, true, false, false, true, false, false, false, false, true, true,
        ];
        let verdicts: Vec<_> = results.iter().map(|r| counter.record(*r)).collect();
        let mut expect = vec![None; results.len()];
        expect[1] = Some(true);
        expect[8] = Some(false);
        expect[11] = Some(true);
        assert_eq!(verdicts, expect);
    }

    proptest! {
        #[test]
        fn verdicts_alternate_and_rest_on_enough_results(
            results in proptest::collection::vec(any::<bool>(), 0..60),
            success in 1..4_i32,
            failure in 1..4_i32,
        ) {
            let mut counter = counter(success, failure);
            let mut last = None;
            for (at, result) in results.iter().enumerate() {
                if let Some(verdict) = counter.record(*result) {
                    prop_assert_ne!(Some(verdict), last);
                    last = Some(verdict);
                    let needed = if verdict { success } else { failure } as usize;
                    let tail = &results[at + 1 - needed..=at];
                    prop_assert!(tail.iter().all(|r| *r == verdict));
                }
            }
        }
    }
}
