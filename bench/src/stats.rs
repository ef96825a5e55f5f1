//! Medians and quartiles.

/// The middle of some numbers, and the half of them around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// A quarter of the numbers is below.
    pub(crate) low: f64,
    /// Half of the numbers is below.
    pub(crate) median: f64,
    /// A quarter of the numbers is above.
    pub(crate) high: f64,
}

/// Median and quartiles. `None` if there are no numbers, or any is not finite.
pub(crate) fn spread(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = numbers.into_iter().collect();
    if sorted.iter().any(|number| !number.is_finite()) {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    Some(Spread {
        low: quantile(&sorted, 1)?,
        median: quantile(&sorted, 2)?,
        high: quantile(&sorted, 3)?,
    })
}

/// The quantile at so many quarters of sorted numbers, in between two of them if need be.
fn quantile(sorted: &[f64], quarters: usize) -> Option<f64> {
    let position = sorted.len().checked_sub(1)? * quarters;
    let low = *sorted.get(position / 4)?;
    let part = [0.0, 0.25, 0.5, 0.75][position % 4];
    let high = sorted.get(position / 4 + 1).copied().unwrap_or(low);
    Some(low + (high - low) * part)
}

/// The ratios of numbers that belong together, where both are there and the divisor is not zero.
pub(crate) fn ratios(numbers: &[Option<f64>], divisors: &[Option<f64>]) -> Option<Spread> {
    let pairs = numbers.iter().zip(divisors);
    spread(
        pairs.filter_map(|(number, divisor)| match (number, divisor) {
            (Some(number), Some(divisor)) if *divisor > 0.0 => Some(number / divisor),
            _ => None,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let found = spread([5.0, 1.0, 3.0]).unwrap();
        assert_eq!(
            found,
            Spread {
                low: 2.0,
                median: 3.0,
                high: 4.0
            }
        );
        assert_eq!(spread([1.0, 2.0]).unwrap().median, 1.5);
    }

    #[test]
    fn the_median_of_one_number_is_that_number() {
        let found = spread([7.0]).unwrap();
        assert_eq!((found.low, found.median, found.high), (7.0, 7.0, 7.0));
    }

    #[test]
    fn quartiles_lie_between_numbers() {
        let found = spread([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((found.low, found.median, found.high), (1.75, 2.5, 3.25));
    }

    #[test]
    fn there_is_no_median_of_nothing_or_of_what_is_no_number() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([1.0, f64::NAN]), None);
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(spread([1.0, 1.0, 1000.0, 1.0, 1.0]).unwrap().median, 1.0);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // Everything in the second round took ten times as long: the ratio stays.
        let numbers = [Some(2.0), Some(20.0), None, Some(4.0)];
        let divisors = [Some(1.0), Some(10.0), Some(3.0), Some(2.0)];
        let found = ratios(&numbers, &divisors).unwrap();
        assert_eq!((found.low, found.median, found.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_ratio_to_nothing_is_left_out() {
        assert_eq!(ratios(&[Some(1.0)], &[Some(0.0)]), None);
        assert_eq!(ratios(&[Some(1.0)], &[None]), None);
    }
}
