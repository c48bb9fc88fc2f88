//! A whole pre-norm transformer block as one differentiable operation.
//!
//! `x + attention(norm(x))`, then `x + mlp(norm(x))`. Written as one operation because the operations inside it want to
//! know of each other: a product ends in the activation that follows it, a gradient goes straight into the next
//! product's element type, and the backward pass frees what it has used. candle would keep every intermediate result
//! until the loss is dropped; here they belong to the operation, which keeps qkv, the attended values, the sum in the
//! middle and the hidden layer (`20 D` bytes per token in bfloat16, `36 D` in f32, for an MLP of `4 D`) or, with
//! [`Keep::Inputs`], nothing but its input.
//!
//! candle's custom operations take at most three tensors, and a block has a dozen parameters. They hang on a chain of
//! [`link`]s, whose end is the block's second argument: the block's backward pass leaves the parameters' gradients
//! with the chain, which hands them to candle when its turn comes.

mod attention;
mod link;
pub(crate) mod rows;

use std::iter::repeat_n;
use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail,
};

use crate::buffer::Buffer;
use crate::cpu::{View, slice, tensor};
use crate::precision::{Compute, Keep, Precision};
use crate::product::finish::{Accumulate, Activate, ActivateBackward, Activation, AddResidual, Store};
use crate::product::{Finish, Matrix, Out, available, product};
use crate::simd::{Bf16, Elem};
use crate::sink;
use link::{Stash, link};
use rows::{Passed, Stats, column_sums, convert_rows, layer_norm, layer_norm_backward, normalise};

/// The parameters of a block, and what else describes it. `D` is the width, `M` that of the MLP's hidden layer.
#[derive(Clone, Debug)]
pub struct BlockParams {
    /// Weight and bias `[D]` of the norm before the attention.
    pub norm1: [Tensor; 2],
    /// Queries, keys, values: `[3 D, D]`, as [`crate::attention`] takes their products.
    pub qkv: Tensor,
    /// Their bias `[3 D]`.
    pub qkv_bias: Option<Tensor>,
    /// Weight `[D, D]` and bias `[D]` of the attention's output.
    pub proj: [Tensor; 2],
    /// Weight and bias `[D]` of the norm before the MLP.
    pub norm2: [Tensor; 2],
    /// Weight `[M, D]` and bias `[M]` of the MLP's first layer.
    pub fc1: [Tensor; 2],
    /// Weight `[D, M]` and bias `[D]` of the MLP's second layer.
    pub fc2: [Tensor; 2],
    /// Attention heads; divides `D`.
    pub heads: usize,
    /// Added to the variance in both norms.
    pub eps: f64,
    /// The MLP's nonlinearity. Only [`Activation::Gelu`] has a backward pass.
    pub activation: Activation,
}

/// A pre-norm transformer block: `[B, N, D]` to `[B, N, D]`.
///
/// Fused for `f32` on processors with AVX2 or AVX-512 ([`block_is_fused`]); elsewhere composed of this crate's other
/// operations, in f32. Without a backward pass, the fused one also takes parameters in bfloat16.
///
/// # Errors
/// When shapes do not fit, a dimension is 0, or a backward pass is wanted through an activation that has none.
pub fn block(x: &Tensor, params: &BlockParams, compute: Compute) -> Result<Tensor> {
    block_tail(x, params, x.dims3()?.1, compute)
}

/// The last `tail` tokens of what [`block`] gives, `[B, tail, D]`, without computing the others: those are keys and values only.
///
/// # Errors
/// As [`block`], and when there are fewer tokens, or none are wanted.
pub fn block_tail(x: &Tensor, params: &BlockParams, tail: usize, compute: Compute) -> Result<Tensor> {
    choose(x, params, Sizes::new(x, params, tail)?, None, compute)
}

/// [`block`] with stochastic depth (Huang et al. 2016): what a branch adds to a sample is multiplied by the sample's factor, 0 where
/// it is left out. `factors` are those of attention and MLP, `B` numbers each; they have no gradient.
///
/// # Errors
/// As [`block`], and when there are not as many factors as samples.
pub fn block_dropping(
    x: &Tensor,
    params: &BlockParams,
    factors: [&[f32]; 2],
    compute: Compute,
) -> Result<Tensor> {
    let sizes = Sizes::new(x, params, x.dims3()?.1)?;
    if factors.iter().any(|f| f.len() != sizes.batch) {
        bail!("block: {:?} factors for {} samples", factors.map(<[f32]>::len), sizes.batch);
    }
    choose(x, params, sizes, Some(factors), compute)
}

/// Factors per sample of the two branches, attention and MLP.
type Factors<'a> = Option<[&'a [f32]; 2]>;

fn choose(
    x: &Tensor,
    params: &BlockParams,
    sizes: Sizes,
    factors: Factors<'_>,
    compute: Compute,
) -> Result<Tensor> {
    if compute.keep != Keep::Nothing && params.activation != Activation::Gelu {
        bail!("block: {:?} has no backward pass", params.activation);
    }
    if !(available() && crate::cpu::fused(&[x]) && x.dtype() == DType::F32) {
        return composed(x, params, factors, compute)?.narrow(1, sizes.first(), sizes.tail);
    }
    match compute.precision.or_f32() {
        Precision::F32 => apply::<f32>(x, params, sizes, factors, compute.keep),
        Precision::Bf16 => apply::<Bf16>(x, params, sizes, factors, compute.keep),
    }
}

/// Whether [`block`] has a fused path on this device and processor.
pub fn block_is_fused(device: &Device) -> bool {
    matches!(device, Device::Cpu) && available()
}

fn composed(x: &Tensor, params: &BlockParams, factors: Factors<'_>, compute: Compute) -> Result<Tensor> {
    let (params, x) = match compute.keep {
        Keep::Nothing => (&params.map(Tensor::detach), x.detach()),
        _ => (params, x.clone()),
    };
    let norm = |x: &Tensor, [w, b]: &[Tensor; 2]| crate::layer_norm(x, w, b, params.eps);
    let linear = |x: &Tensor, [w, b]: &[Tensor; 2]| crate::linear(x, w, Some(b));
    let scaled = |branch: Tensor, which: usize| match factors {
        None => Ok(branch),
        Some(factors) => {
            let factors = Tensor::from_slice(factors[which], (factors[which].len(), 1, 1), x.device())?;
            branch.broadcast_mul(&factors.to_dtype(branch.dtype())?)
        }
    };
    let qkv = crate::linear(&norm(&x, &params.norm1)?, &params.qkv, params.qkv_bias.as_ref())?;
    let attended = linear(&crate::attention(&qkv, params.heads)?, &params.proj)?;
    let middle = (&x + scaled(attended, 0)?)?;
    let hidden = linear(&norm(&middle, &params.norm2)?, &params.fc1)?;
    let hidden = match params.activation {
        Activation::Gelu => crate::gelu(&hidden)?,
        Activation::QuickGelu => {
            let sigmoid = (((&hidden * -1.702)?.exp()? + 1.0)?.recip())?;
            (hidden * sigmoid)?
        }
    };
    middle + scaled(linear(&hidden, &params.fc2)?, 1)?
}

impl BlockParams {
    /// All tensors, in a fixed order, the optional one last.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let pairs = [&self.norm1, &self.proj, &self.norm2, &self.fc1, &self.fc2];
        pairs.into_iter().flatten().chain([&self.qkv]).chain(&self.qkv_bias)
    }

    /// Biases and norms in f32; matrices as they are.
    fn vectors_in_f32(&self) -> Result<Self> {
        let wide = |t: &Tensor| t.to_dtype(DType::F32);
        let norm = |[w, b]: &[Tensor; 2]| Ok::<_, candle_core::Error>([wide(w)?, wide(b)?]);
        let layer = |[w, b]: &[Tensor; 2]| Ok::<_, candle_core::Error>([w.clone(), wide(b)?]);
        Ok(Self {
            norm1: norm(&self.norm1)?,
            qkv: self.qkv.clone(),
            qkv_bias: self.qkv_bias.as_ref().map(wide).transpose()?,
            proj: layer(&self.proj)?,
            norm2: norm(&self.norm2)?,
            fc1: layer(&self.fc1)?,
            fc2: layer(&self.fc2)?,
            ..*self
        })
    }

    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        let pair = |[a, b]: &[Tensor; 2]| [f(a), f(b)];
        Self {
            norm1: pair(&self.norm1),
            qkv: f(&self.qkv),
            qkv_bias: self.qkv_bias.as_ref().map(&f),
            proj: pair(&self.proj),
            norm2: pair(&self.norm2),
            fc1: pair(&self.fc1),
            fc2: pair(&self.fc2),
            ..*self
        }
    }
}

/// The sizes of a block's input and layers.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    tokens: usize,
    /// The last tokens, of which alone the output is wanted.
    tail: usize,
    dim: usize,
    heads: usize,
    mlp: usize,
}

impl Sizes {
    fn new(x: &Tensor, params: &BlockParams, tail: usize) -> Result<Self> {
        let (batch, tokens, dim) = x.dims3()?;
        let (mlp, heads) = (params.fc1[0].dims2()?.0, params.heads);
        let vectors = [(&params.norm1, dim), (&params.norm2, dim)];
        let layers = [(&params.proj, dim, dim), (&params.fc1, mlp, dim), (&params.fc2, dim, mlp)];
        // An empty batch too: the gradients of weights are sums over rows.
        let fits = heads > 0
            && dim % heads == 0
            && x.elem_count() > 0
            && mlp > 0
            && params.qkv.dims() == [3 * dim, dim]
            && params.qkv_bias.as_ref().is_none_or(|b| b.dims() == [3 * dim])
            && vectors.iter().all(|(p, n)| p.iter().all(|p| p.dims() == [*n]))
            && layers.iter().all(|([w, b], o, i)| w.dims() == [*o, *i] && b.dims() == [*o]);
        if !fits {
            let shapes: Vec<_> = params.tensors().map(Tensor::dims).collect();
            bail!("block: input {:?} with {heads} heads and parameters {shapes:?}", x.shape());
        }
        if !(1..=tokens).contains(&tail) {
            bail!("block: the last {tail} of {tokens} tokens");
        }
        Ok(Self { batch, tokens, tail, dim, heads, mlp })
    }

    /// Rows of the input.
    fn rows(&self) -> usize {
        self.batch * self.tokens
    }

    /// Rows of the output.
    fn tail_rows(&self) -> usize {
        self.batch * self.tail
    }

    /// The first token whose output is wanted.
    fn first(&self) -> usize {
        self.tokens - self.tail
    }
}

fn apply<E: Elem>(
    x: &Tensor,
    params: &BlockParams,
    sizes: Sizes,
    factors: Factors<'_>,
    keep: Keep,
) -> Result<Tensor> {
    let inference = keep == Keep::Nothing;
    for p in params.tensors() {
        if !p.is_contiguous() || !(p.dtype() == DType::F32 || inference && p.dtype() == DType::BF16) {
            bail!(
                "block: a parameter {:?} of type {:?} where contiguous f32 is wanted",
                p.shape(),
                p.dtype()
            );
        }
    }
    let x = x.contiguous()?;
    if inference {
        return x.detach().apply_op1_no_bwd(&Block::<E>::new(
            &params.vectors_in_f32()?,
            sizes,
            factors,
            keep,
        ));
    }
    let op = Block::<E>::new(params, sizes, factors, keep);
    let link = link(params.tensors(), &op.stash)?;
    x.apply_op2(&link, op)
}

/// What the forward pass leaves for the backward pass.
struct Saved<E: Elem> {
    norm1: Vec<Stats>,
    qkv: Buffer<E>,
    log_sums: Vec<f32>,
    attended: Buffer<E>,
    /// The sum between attention and MLP.
    middle: Buffer<f32>,
    norm2: Vec<Stats>,
    /// What the activation was given.
    hidden: Buffer<E>,
}

struct Block<E: Elem> {
    params: BlockParams,
    sizes: Sizes,
    /// What each row of the output gets of the two branches, attention and MLP; all of it if `None`.
    shares: [Option<Vec<f32>>; 2],
    keep: Keep,
    saved: Mutex<Option<Saved<E>>>,
    stash: Stash,
}

/// The parameters held open for reading.
struct Views<'a> {
    norm1: [View<'a>; 2],
    qkv: View<'a>,
    qkv_bias: Option<View<'a>>,
    proj: [View<'a>; 2],
    norm2: [View<'a>; 2],
    fc1: [View<'a>; 2],
    fc2: [View<'a>; 2],
}

impl<'a> Views<'a> {
    fn new(params: &'a BlockParams) -> Self {
        let pair = |[a, b]: &'a [Tensor; 2]| [View::new(a), View::new(b)];
        Self {
            norm1: pair(&params.norm1),
            qkv: View::new(&params.qkv),
            qkv_bias: params.qkv_bias.as_ref().map(View::new),
            proj: pair(&params.proj),
            norm2: pair(&params.norm2),
            fc1: pair(&params.fc1),
            fc2: pair(&params.fc2),
        }
    }
}

fn both<'a>([a, b]: &'a [View<'_>; 2]) -> Result<[&'a [f32]; 2]> {
    Ok([a.as_slice()?, b.as_slice()?])
}

/// `a wᵀ` for a weight `[lanes, depth]` in f32 or bfloat16.
fn times<E: Elem, F: Finish>(a: Matrix<'_, E>, weight: &Tensor, view: &View<'_>, finish: &F) -> Result<()> {
    let (lanes, depth) = weight.dims2()?;
    match weight.dtype() {
        DType::BF16 => {
            let weight = Bf16::slice(view.as_slice()?);
            product::<E, _, _, _>(a, Matrix::rows(weight, lanes, depth, depth), finish);
        }
        _ => product::<E, _, _, _>(a, Matrix::rows(view.as_slice::<f32>()?, lanes, depth, depth), finish),
    }
    Ok(())
}

impl<E: Elem> Block<E> {
    fn new(params: &BlockParams, sizes: Sizes, factors: Factors<'_>, keep: Keep) -> Self {
        let rows = |factors: &[f32]| factors.iter().flat_map(|&f| repeat_n(f, sizes.tail)).collect();
        let shares = factors.map_or([None, None], |factors| factors.map(|f| Some(rows(f))));
        Self { params: params.clone(), sizes, shares, keep, saved: Mutex::new(None), stash: Stash::default() }
    }

    /// The shares of attention and MLP.
    fn shares(&self) -> [Option<&[f32]>; 2] {
        self.shares.each_ref().map(Option::as_deref)
    }

    /// The block's output, and, if `keep`, what the backward pass needs.
    fn forward(&self, x: &[f32], keep: bool) -> Result<(Vec<f32>, Option<Saved<E>>)> {
        let Sizes { dim, mlp, .. } = self.sizes;
        let (rows, params) = (self.sizes.rows(), &self.params);
        let [attention_shares, mlp_shares] = self.shares();
        let views = Views::new(params);
        let [weight, bias] = both(&views.norm1)?;
        let (normed, norm1) = layer_norm::<E>(x, weight, bias, params.eps);
        let mut qkv = Buffer::<E>::new(rows * 3 * dim);
        let bias = views.qkv_bias.as_ref().map(|b| b.as_slice()).transpose()?;
        let finish = Store { out: Out::new(&mut qkv), stride: 3 * dim, bias };
        times(Matrix::rows(&normed, rows, dim, dim), &params.qkv, &views.qkv, &finish)?;
        drop(normed);
        let (attended, log_sums) = attention::forward(&qkv, &self.sizes);

        let rows = self.sizes.tail_rows();
        let residual = rows::tails(x, &self.sizes);
        let mut middle = Buffer::<f32>::new(rows * dim);
        let bias = views.proj[1].as_slice()?;
        let (out, shares) = (Out::new(&mut middle), attention_shares);
        let finish = AddResidual { out, stride: dim, bias, shares, residual: &residual };
        times(Matrix::rows(&attended, rows, dim, dim), &params.proj[0], &views.proj[0], &finish)?;
        drop(residual);

        let [weight, bias] = both(&views.norm2)?;
        let (normed, norm2) = layer_norm::<E>(&middle, weight, bias, params.eps);
        let mut hidden = Buffer::<E>::new(if keep { rows * mlp } else { 0 });
        let mut activated = Buffer::<E>::new(rows * mlp);
        let finish = Activate {
            hidden: keep.then(|| Out::new(&mut hidden)),
            activated: Out::new(&mut activated),
            stride: mlp,
            bias: views.fc1[1].as_slice()?,
            activation: params.activation,
        };
        times(Matrix::rows(&normed, rows, dim, dim), &params.fc1[0], &views.fc1[0], &finish)?;
        drop(normed);
        let mut out = vec![0f32; rows * dim];
        let bias = views.fc2[1].as_slice()?;
        let shares = mlp_shares;
        let finish = AddResidual { out: Out::new(&mut out), stride: dim, bias, shares, residual: &middle };
        times(Matrix::rows(&activated, rows, mlp, mlp), &params.fc2[0], &views.fc2[0], &finish)?;
        let saved = keep.then_some(Saved { norm1, qkv, log_sums, attended, middle, norm2, hidden });
        Ok((out, saved))
    }

    /// The gradient of the input. Those of the parameters go where [`sink::deliver`] says, the rest into the stash.
    fn backward(&self, x: &[f32], saved: Saved<E>, dout: &[f32]) -> Result<Vec<f32>> {
        let Sizes { dim, mlp, .. } = self.sizes;
        let (all, rows) = (self.sizes.rows(), self.sizes.tail_rows());
        let params = &self.params;
        let [attention_shares, mlp_shares] = self.shares();
        let views = Views::new(params);
        let mut grads = Vec::with_capacity(12);
        let weight_grad = |param: &Tensor, dy: &[E], outs: usize, x: &[E], ins: usize| {
            let rows = x.len() / ins;
            let (dy, x) = (Matrix::cols(dy, outs, rows, outs), Matrix::cols(x, ins, rows, ins));
            sink::deliver(param, |out, add| {
                product::<E, _, _, _>(dy, x, &Accumulate { out: Out::new(out), stride: ins, add });
            })
        };

        // The MLP: out = middle + fc2(activation(fc1(norm2(middle)))).
        let dy = convert_rows::<E>(dout, dim, mlp_shares);
        let dfc2_bias = column_sums(&dy, dim);
        let mut dhidden = saved.hidden;
        let mut activated = Buffer::<E>::new(rows * mlp);
        {
            let (hidden, activated) = (Out::new(&mut dhidden), Out::new(&mut activated));
            let finish = ActivateBackward { hidden, activated, stride: mlp };
            let weight = Matrix::cols(both(&views.fc2)?[0], mlp, dim, mlp);
            product::<E, _, _, _>(Matrix::rows(&dy, rows, dim, dim), weight, &finish);
        }
        let dfc2 = weight_grad(&params.fc2[0], &dy, dim, &activated, mlp)?;
        drop((dy, activated));
        let [weight, bias] = both(&views.norm2)?;
        let normed = normalise::<E>(&saved.middle, &saved.norm2, weight, bias);
        let dfc1 = weight_grad(&params.fc1[0], &dhidden, mlp, &normed, dim)?;
        let dfc1_bias = column_sums(&dhidden, mlp);
        let mut dnormed = normed;
        {
            let finish = Store { out: Out::new(&mut dnormed), stride: dim, bias: None };
            let weight = Matrix::cols(both(&views.fc1)?[0], dim, mlp, dim);
            product::<E, _, _, _>(Matrix::rows(&dhidden, rows, mlp, mlp), weight, &finish);
        }
        drop(dhidden);
        let passed = Passed { residual: dout, shares: attention_shares };
        let dmiddle = layer_norm_backward(&saved.middle, &saved.norm2, weight, &dnormed, passed);
        drop(saved.middle);

        // The attention: middle = x + proj(attention(qkv(norm1(x)))).
        let dproj_bias = column_sums(&dmiddle.narrow, dim);
        let dproj = weight_grad(&params.proj[0], &dmiddle.narrow, dim, &saved.attended, dim)?;
        let mut dattended = dnormed;
        {
            let finish = Store { out: Out::new(&mut dattended), stride: dim, bias: None };
            let weight = Matrix::cols(both(&views.proj)?[0], dim, dim, dim);
            product::<E, _, _, _>(Matrix::rows(&dmiddle.narrow, rows, dim, dim), weight, &finish);
        }
        let dqkv = attention::backward(&saved.qkv, &saved.attended, &dattended, &saved.log_sums, &self.sizes);
        drop((saved.qkv, saved.attended));
        let [weight, bias] = both(&views.norm1)?;
        let normed = normalise::<E>(x, &saved.norm1, weight, bias);
        let dqkv_weight = weight_grad(&params.qkv, &dqkv, 3 * dim, &normed, dim)?;
        let mut dnormed = normed;
        {
            let finish = Store { out: Out::new(&mut dnormed), stride: dim, bias: None };
            let weight = Matrix::cols(views.qkv.as_slice::<f32>()?, dim, 3 * dim, dim);
            product::<E, _, _, _>(Matrix::rows(&dqkv, all, 3 * dim, 3 * dim), weight, &finish);
        }
        let residual = rows::from_tails(dmiddle.dx, &self.sizes);
        let passed = Passed { residual: &residual, shares: None };
        let dx = layer_norm_backward(x, &saved.norm1, weight, &dnormed, passed);

        // In the order of `BlockParams::tensors`.
        let vector = sink::deliver_values;
        grads.push(vector(&params.norm1[0], &dx.dweight)?);
        grads.push(vector(&params.norm1[1], &dx.dbias)?);
        grads.push(dproj);
        grads.push(vector(&params.proj[1], &dproj_bias)?);
        grads.push(vector(&params.norm2[0], &dmiddle.dweight)?);
        grads.push(vector(&params.norm2[1], &dmiddle.dbias)?);
        grads.push(dfc1);
        grads.push(vector(&params.fc1[1], &dfc1_bias)?);
        grads.push(dfc2);
        grads.push(vector(&params.fc2[1], &dfc2_bias)?);
        grads.push(dqkv_weight);
        if let Some(bias) = &params.qkv_bias {
            grads.push(vector(bias, &column_sums(&dqkv, 3 * dim))?);
        }
        self.stash.put(grads);
        Ok(dx.dx)
    }

    fn run(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (out, saved) = self.forward(slice(x, layout)?, self.keep == Keep::Activations)?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        let Sizes { batch, tail, dim, .. } = self.sizes;
        Ok((f32::to_cpu_storage_owned(out), Shape::from((batch, tail, dim))))
    }
}

impl<E: Elem> CustomOp1 for Block<E> {
    fn name(&self) -> &'static str {
        "tgm-block-inference"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout)
    }
}

impl<E: Elem> CustomOp2 for Block<E> {
    fn name(&self) -> &'static str {
        "tgm-block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _link: &CpuStorage,
        _link_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(x, layout)
    }

    fn bwd(
        &self,
        x: &Tensor,
        link: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (xv, gv) = (View::new(x), View::new(&grad));
        // Taken, so that it is freed on the way; a second backward pass over the same graph computes it again.
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let saved = match saved {
            Some(saved) => saved,
            None => match self.forward(xv.as_slice()?, true)?.1 {
                Some(saved) => saved,
                None => bail!("block: the forward pass kept nothing"),
            },
        };
        let dx = self.backward(xv.as_slice()?, saved, gv.as_slice()?)?;
        Ok((Some(tensor(dx, x.shape())?), Some(Tensor::zeros(link.shape(), DType::F32, &Device::Cpu)?)))
    }
}

#[cfg(test)]
mod tests;
