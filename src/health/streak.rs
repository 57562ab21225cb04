//! When results in a row make an endpoint up or down.

/// What the results so far say of an endpoint. The first one decides alone; from then on it takes
/// several in a row to say otherwise, so that one lost packet changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Streak {
    /// `None` before the first result.
    is_up: Option<bool>,
    /// Results in a row that contradict it.
    against: u32,
}

impl Streak {
    /// Counts one more result, and returns whether the endpoint is up now. `rise` passes in a row
    /// end being down, `fall` failures in a row end being up.
    pub(super) fn count(&mut self, passed: bool, rise: u32, fall: u32) -> bool {
        let Some(is_up) = self.is_up.filter(|is_up| *is_up != passed) else {
            *self = Self { is_up: Some(passed), against: 0 };
            return passed;
        };
        self.against = self.against.saturating_add(1);
        if self.against < if passed { rise } else { fall } {
            return is_up;
        }
        *self = Self { is_up: Some(passed), against: 0 };
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_decides_and_then_it_takes_several_in_a_row() {
        // Rise, fall, results (`+` passed), and what the endpoint is after each of them.
        let cases = [
            (2, 3, "+", "+"),
            (2, 3, "-", "-"),
            (2, 3, "+---", "+++-"),
            (2, 3, "+--+---", "++++++-"),
            (2, 3, "+--+--+--", "+++++++++"),
            (2, 3, "-++", "--+"),
            (2, 3, "-+-+-++", "------+"),
            (2, 3, "+---++---", "+++--+++-"),
            (1, 1, "+-+-", "+-+-"),
            (3, 1, "+-++-+++", "+------+"),
            // Nonsense, but no trap.
            (0, 0, "+-+", "+-+"),
        ];
        for (rise, fall, results, expected) in cases {
            let mut streak = Streak::default();
            let states = results.chars().map(|result| streak.count(result == '+', rise, fall));
            let states: String = states.map(|is_up| if is_up { '+' } else { '-' }).collect();
            assert_eq!(states, expected, "rise {rise}, fall {fall}, results {results}");
        }
    }

    #[test]
    fn a_reload_that_asks_for_fewer_is_obeyed_at_the_next_result() {
        let mut streak = Streak::default();
        assert!(streak.count(true, 2, 10));
        assert!((0..5).all(|_| streak.count(false, 2, 10)));
        assert!(!streak.count(false, 2, 3));
    }
}
