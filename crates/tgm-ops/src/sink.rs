//! Where gradients of parameters go without a detour.
//!
//! candle adds every gradient to a tensor of zeros that it makes first: three passes over memory as large as the model,
//! and a second copy of all gradients. While a [`crate::Gradients`] runs a backward pass, the fused operations of this
//! crate find its buffers here, by parameter, and write into them; candle is then told that there is nothing to add.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{Result, Tensor, TensorId};

/// A parameter's buffer.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) values: Vec<f32>,
    /// Whether `values` is the gradient so far; otherwise it is to be overwritten.
    pub(crate) filled: bool,
    /// Whether this backward pass wrote here.
    pub(crate) reached: bool,
}

/// By parameter.
type Slots = HashMap<TensorId, Slot>;

thread_local! {
    static SINK: RefCell<Option<Slots>> = const { RefCell::new(None) };
}

/// Runs `f` with the slots in place, and gives them back, whatever became of `f`.
///
/// A thread of the pool that waits for a part of one backward pass may take up another whole one meanwhile: the slots of
/// the first are put aside until the second has ended.
pub(crate) fn with<R>(slots: Slots, f: impl FnOnce() -> R) -> (R, Slots) {
    /// Puts back what was there also when `f` panics, so that a later pass on this thread does not find stale buffers.
    struct Restore(Option<Slots>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SINK.set(self.0.take());
        }
    }
    let restore = Restore(SINK.replace(Some(slots)));
    let result = f();
    let slots = SINK.take().unwrap_or_default();
    drop(restore);
    (result, slots)
}

/// Computes the gradient of `param` by `write(buffer, add)`: into its slot, in which case there is nothing left for
/// candle to add, or into a new tensor. With `add`, the buffer's content is to be kept and added to.
pub(crate) fn deliver(param: &Tensor, write: impl FnOnce(&mut [f32], bool)) -> Result<Option<Tensor>> {
    let slot = SINK.with(|sink| sink.borrow_mut().as_mut().and_then(|slots| slots.remove(&param.id())));
    match slot {
        Some(mut slot) => {
            write(&mut slot.values, slot.filled);
            (slot.filled, slot.reached) = (true, true);
            SINK.with(|sink| sink.borrow_mut().as_mut().and_then(|slots| slots.insert(param.id(), slot)));
            Ok(None)
        }
        None => {
            let mut values = vec![0f32; param.elem_count()];
            write(&mut values, false);
            Ok(Some(Tensor::from_vec(values, param.shape(), param.device())?))
        }
    }
}

/// [`deliver`] for a gradient that is there already.
pub(crate) fn deliver_values(param: &Tensor, values: &[f32]) -> Result<Option<Tensor>> {
    deliver(param, |buffer, add| {
        if add {
            buffer.iter_mut().zip(values).for_each(|(b, &v)| *b += v);
        } else {
            buffer.copy_from_slice(values);
        }
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn slots(param: &Tensor, value: f32) -> Slots {
        HashMap::from([(param.id(), Slot { values: vec![value], filled: true, reached: false })])
    }

    fn add_one(param: &Tensor) -> bool {
        deliver(param, |buffer, _| buffer[0] += 1.0).unwrap().is_none()
    }

    #[test]
    fn a_pass_within_a_pass_has_its_own_slots_and_leaves_those_of_the_outer_one() {
        let var = Var::new(&[0f32], &Device::Cpu).unwrap();
        let param = var.as_tensor();
        let (inner, outer) = with(slots(param, 10.0), || {
            assert!(add_one(param));
            let (taken, inner) = with(slots(param, 20.0), || add_one(param));
            assert!(taken && add_one(param));
            inner
        });
        assert_eq!((inner[&param.id()].values[0], outer[&param.id()].values[0]), (21.0, 12.0));
        assert!(!add_one(param), "nothing is left behind");
    }

    #[test]
    fn a_pass_that_panics_leaves_the_slots_of_the_outer_one() {
        let var = Var::new(&[0f32], &Device::Cpu).unwrap();
        let param = var.as_tensor();
        let (_, outer) = with(slots(param, 10.0), || {
            let inner = std::panic::AssertUnwindSafe(|| with(HashMap::new(), || panic!("on purpose")));
            assert!(std::panic::catch_unwind(inner).is_err());
            assert!(add_one(param));
        });
        assert_eq!(outer[&param.id()].values[0], 11.0);
    }
}
