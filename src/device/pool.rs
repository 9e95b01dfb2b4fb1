//! What the CUDA driver says about memory, for which candle has no call.

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::{DriverError, sys};

use super::DeviceMemory;

/// Marks of the pool that tensors come from; `None` for a driver without pools.
pub(super) fn marks(on: &CudaDevice) -> Result<Option<DeviceMemory>, DriverError> {
    let stream = on.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    // SAFETY: the handle comes from a context that is open and outlives this call.
    let pool = unsafe { device::get_mem_pool(context.cu_device()) }?;
    let mark = |attribute| {
        let mut bytes: sys::cuuint64_t = 0;
        // SAFETY: the pool is the device's own, and both attributes asked for below are of this type.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut bytes).cast()) }?;
        Ok(bytes as usize)
    };
    Ok(Some(DeviceMemory {
        used: mark(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
        reserved: mark(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?,
    }))
}
