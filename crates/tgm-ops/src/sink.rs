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

thread_local! {
    static SINK: RefCell<Option<HashMap<TensorId, Slot>>> = const { RefCell::new(None) };
}

/// Runs `f` with the slots in place, and gives them back, whatever became of `f`.
pub(crate) fn with<R>(slots: HashMap<TensorId, Slot>, f: impl FnOnce() -> R) -> (R, HashMap<TensorId, Slot>) {
    /// Empties the sink also when `f` panics, so that a later pass on this thread does not find stale buffers.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            SINK.with(|sink| sink.borrow_mut().take());
        }
    }
    SINK.with(|sink| *sink.borrow_mut() = Some(slots));
    let reset = Reset;
    let result = f();
    let slots = SINK.with(|sink| sink.borrow_mut().take()).unwrap_or_default();
    drop(reset);
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
