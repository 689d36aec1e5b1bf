//! Files of a test's own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of this test's own, gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sfu-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // What a test has left that was killed, and had our number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a folder of our own");
        Folder(path)
    }

    /// Where it is.
    pub fn dir(&self) -> &str {
        self.0.to_str().expect("our own name")
    }

    /// Of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("our own name").to_owned()
    }

    /// Writes a file, and says where it is.
    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("our own folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
