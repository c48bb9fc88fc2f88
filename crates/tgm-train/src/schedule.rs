//! The learning rate over time.

use crate::config::Plan;

/// The learning rate of a step (counted from 0): a linear warm-up from 0 to the peak, then half a cosine to the end.
///
/// Source: VideoMAE `utils.cosine_scheduler`, whose warm-up starts at 0 because the scripts' `warmup_lr` never reaches it.
pub fn learning_rate(plan: &Plan, step: u64) -> f64 {
    let (peak, end) = plan.lr;
    let length = plan.length;
    if step < length.warmup {
        return peak * step as f64 / (length.warmup.max(2) - 1) as f64;
    }
    let done = (step - length.warmup) as f64 / (length.total - length.warmup).max(1) as f64;
    end + 0.5 * (peak - end) * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Length};

    fn plan() -> Plan {
        let mut plan = Plan::new(&Config::default(), 1024).unwrap();
        plan.length = Length { total: 100, warmup: 11, stop: 100 };
        plan.lr = (1.0, 0.1);
        plan
    }

    #[test]
    fn it_rises_from_zero_to_the_peak_and_falls_to_the_end() {
        let plan = plan();
        let at = |step| learning_rate(&plan, step);
        assert_eq!((at(0), at(10), at(11)), (0.0, 1.0, 1.0));
        assert!((at(99) - 0.1).abs() < 1e-3 && at(99) > 0.1);
        assert!((1..11).all(|s| at(s) > at(s - 1)) && (12..100).all(|s| at(s) < at(s - 1)));
    }

    #[test]
    fn without_warmup_it_starts_at_the_peak() {
        let mut plan = plan();
        plan.length.warmup = 0;
        assert_eq!(learning_rate(&plan, 0), 1.0);
    }
}
