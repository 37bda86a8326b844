//! Moments as text, the way Django REST framework writes them.

use jiff::Timestamp;

/// `2023-08-08T12:00:00Z`, with six digits of microseconds when they are not zero.
pub fn iso8601(moment: Timestamp) -> String {
    let precision = if moment.subsec_nanosecond() == 0 { 0 } else { 6 };
    format!("{moment:.precision$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_written_only_when_there_are_any() {
        let of = |microseconds| iso8601(Timestamp::from_microsecond(microseconds).unwrap());
        assert_eq!(of(1_691_496_000_000_000), "2023-08-08T12:00:00Z");
        assert_eq!(of(1_691_496_000_500_000), "2023-08-08T12:00:00.500000Z");
        assert_eq!(of(1_691_496_000_000_001), "2023-08-08T12:00:00.000001Z");
    }
}
