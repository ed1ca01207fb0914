//! The order in which a guest speaks. PID 1 keeps to it; what is out of order is not PID 1's word, whatever its checksum
//! says, and so not believed.

use probes::protocol::Message;
use std::collections::BTreeSet;

/// What one boot has said so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    greeted: bool,
    /// The probes that the guest has announced and not begun.
    to_come: Option<BTreeSet<String>>,
    under_way: Option<String>,
}

impl Order {
    /// Follows one message.
    ///
    /// # Errors
    /// What was said out of turn.
    pub(super) fn follow(&mut self, message: &Message) -> Result<(), String> {
        match message {
            Message::Hello { .. } if !self.greeted => {
                self.greeted = true;
                Ok(())
            }
            Message::Inventory { probes } if self.greeted && self.to_come.is_none() => {
                self.to_come = Some(probes.iter().map(|probe| probe.probe.clone()).collect());
                Ok(())
            }
            Message::Start { probe } if self.under_way.is_none() && self.begins(probe) => {
                self.under_way = Some(probe.clone());
                Ok(())
            }
            Message::Case { probe, .. } if self.under_way.as_deref() == Some(probe.as_str()) => Ok(()),
            Message::End { probe, .. } if self.under_way.as_deref() == Some(probe.as_str()) => {
                self.under_way = None;
                Ok(())
            }
            Message::Warned { .. } | Message::Done { .. }
                if self.to_come.is_some() && self.under_way.is_none() =>
            {
                Ok(())
            }
            Message::Failed { .. } => Ok(()),
            Message::Hello { .. } => Err(self.out_of_turn("hello")),
            Message::Inventory { .. } => Err(self.out_of_turn("an inventory")),
            Message::Start { probe } => Err(self.out_of_turn(&format!("the start of {probe}"))),
            Message::Case { probe, .. } => Err(self.out_of_turn(&format!("a case of {probe}"))),
            Message::End { probe, .. } => Err(self.out_of_turn(&format!("the end of {probe}"))),
            Message::Warned { .. } => Err(self.out_of_turn("a warning between probes")),
            Message::Done { .. } => Err(self.out_of_turn("done")),
        }
    }

    /// Whether a probe was announced and has not begun yet; from now on it has.
    fn begins(&mut self, probe: &str) -> bool {
        self.to_come.as_mut().is_some_and(|to_come| to_come.remove(probe))
    }

    fn out_of_turn(&self, what: &str) -> String {
        match &self.under_way {
            Some(probe) => format!("the guest's stream has {what} where {probe} is under way"),
            None => format!("the guest's stream has {what} where it cannot come"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use probes::protocol::{Announced, Machine};
    use probes::record::{KernelFacts, Outcome};
    use rstest::rstest;

    fn hello() -> Message {
        Message::Hello { protocol: 0, facts: Box::new(KernelFacts::default()) }
    }

    fn inventory(probes: &[&str]) -> Message {
        let announced = |probe: &&str| Announced { probe: (*probe).to_owned(), machine: Machine::Shared };
        Message::Inventory { probes: probes.iter().map(announced).collect() }
    }

    fn start(probe: &str) -> Message {
        Message::Start { probe: probe.to_owned() }
    }

    fn end(probe: &str) -> Message {
        let probe = probe.to_owned();
        Message::End { probe, outcome: Outcome::Observed, warnings: Vec::new(), micros: 1 }
    }

    #[test]
    fn what_pid_1_says_is_in_order() {
        let mut order = Order::default();
        let said = [
            hello(),
            inventory(&["a", "b"]),
            start("a"),
            end("a"),
            start("b"),
            end("b"),
            Message::Warned { warnings: vec!["WARNING: x".into()] },
            Message::Done { records: 2 },
        ];
        for message in said {
            assert_eq!(order.follow(&message), Ok(()), "{message:?}");
        }
    }

    #[rstest]
    #[case::another_probes_end(&[start("a")], &end("b"), "the end of b where a is under way")]
    #[case::an_end_twice(&[start("a"), end("a")], &end("a"), "the end of a where it cannot come")]
    #[case::a_start_twice(&[start("a"), end("a")], &start("a"), "the start of a where it cannot come")]
    #[case::a_start_within_another(&[start("a")], &start("b"), "the start of b where a is under way")]
    #[case::a_probe_that_nobody_announced(&[], &start("c"), "the start of c where")]
    #[case::another_inventory(&[], &inventory(&["c"]), "an inventory where")]
    #[case::another_hello(&[], &hello(), "hello where")]
    #[case::a_warning_during_a_probe(
        &[start("a")],
        &Message::Warned { warnings: Vec::new() },
        "a warning between probes where a is under way"
    )]
    #[case::done_too_early(&[start("a")], &Message::Done { records: 0 }, "done where a is under way")]
    fn what_is_out_of_turn_is_refused(#[case] said: &[Message], #[case] then: &Message, #[case] why: &str) {
        let mut order = Order::default();
        for message in [hello(), inventory(&["a", "b"])].iter().chain(said) {
            order.follow(message).unwrap();
        }
        assert!(order.follow(then).unwrap_err().contains(why));
    }
}
