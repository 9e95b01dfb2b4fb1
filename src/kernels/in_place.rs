//! Changing the elements of a tensor where they lie.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout};

use super::share::pieces;
use super::simd::widened;

/// Elements that one task changes.
pub(crate) const TASK: usize = 1 << 14;

/// Changes each element by those of other tensors at the same place.
pub(crate) struct Each<F>(pub(crate) F);

const CHANGING: &str = "changing a tensor in place";

impl<F: Fn(&mut f32, [f32; 1]) + Sync> InplaceOp2 for Each<F> {
    fn name(&self) -> &'static str {
        CHANGING
    }

    fn cpu_fwd(
        &self,
        own: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
    ) -> candle_core::Result<()> {
        change(whole_mut(own, layout)?, [whole(a, a_layout)?], &self.0)
    }
}

impl<F: Fn(&mut f32, [f32; 2]) + Sync> InplaceOp3 for Each<F> {
    fn name(&self) -> &'static str {
        CHANGING
    }

    fn cpu_fwd(
        &self,
        own: &mut CpuStorage,
        layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        change(whole_mut(own, layout)?, [whole(a, a_layout)?, whole(b, b_layout)?], &self.0)
    }
}

fn whole<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(all)) => Ok(&all[start..end]),
        _ => candle_core::bail!("{CHANGING} takes contiguous f32"),
    }
}

fn whole_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(all)) => Ok(&mut all[start..end]),
        _ => candle_core::bail!("{CHANGING} takes contiguous f32"),
    }
}

fn change<const N: usize>(
    own: &mut [f32],
    others: [&[f32]; N],
    f: &(impl Fn(&mut f32, [f32; N]) + Sync),
) -> candle_core::Result<()> {
    if let Some(other) = others.iter().find(|other| other.len() != own.len()) {
        candle_core::bail!("{} numbers for {}", other.len(), own.len());
    }
    let run = |task: usize, own: &mut [f32]| {
        let others = others.map(|all| &all[task * TASK..][..own.len()]);
        widened(|| own.iter_mut().enumerate().for_each(|(i, own)| f(own, others.map(|all| all[i]))));
    };
    // Most tensors are small: waking other threads would cost more than the step.
    if own.len() <= TASK {
        run(0, own);
    } else {
        pieces(own, TASK, &run);
    }
    Ok(())
}
