//! Memory that the kernel writes to or reads from: pages of its own, at one place until dropped.

use std::io;
use std::ptr::NonNull;

/// Zeroed pages, present from the start.
pub(super) struct Slab {
    base: NonNull<u8>,
    len: usize,
}

impl Slab {
    /// At least `len` bytes, page-aligned.
    pub(super) fn new(len: usize) -> io::Result<Slab> {
        assert!(len > 0);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping of the kernel's choosing touches no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Slab { base, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The address of byte `offset`.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len);
        // SAFETY: `offset < len`, so the result lies inside the mapping.
        unsafe { self.base.add(offset) }
    }

    /// Gives the memory up without freeing it.
    pub(super) fn leak(&mut self) {
        self.len = 0;
    }

    /// Lends `len` bytes from `offset` on.
    ///
    /// # Safety
    /// The kernel writes none of them until the loan ends, and no other loan overlaps them.
    pub(super) unsafe fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        if len == 0 {
            return &mut [];
        }
        let start = self.at(offset).as_ptr();
        // SAFETY: inside the mapping by the assertion, initialised (the kernel zeroed it), and nobody
        // else's by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: our own mapping, and whoever borrowed from it is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
