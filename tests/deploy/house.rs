//! Where things are, and who reads them for us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gryt_sfu::config::GROUPS;
use serde_json::Value;

/// Who the container image runs as.
pub(crate) const NOBODY: &str = "65532";

/// A path in the checkout.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A file of the checkout.
pub(crate) fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A linter of tests/deploy/requirements.txt.
pub(crate) fn tool(name: &str) -> Command {
    let installed = path("target/tools/bin").join(name);
    assert!(
        installed.exists(),
        "{name} is missing; tools/check.sh installs it, or by hand: python3 -m venv target/tools && \
         target/tools/bin/pip install -r tests/deploy/requirements.txt"
    );
    Command::new(installed)
}

/// Runs it to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What it prints; it must succeed.
pub(crate) fn printed(command: &mut Command) -> String {
    let output = output(command);
    let words = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}{words}", output.status);
    text
}

/// The documents of a YAML file.
pub(crate) fn yaml(relative: &str) -> Vec<Value> {
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = printed(tool("python3").args(["-c", program]).arg(path(relative)));
    serde_json::from_str(&text).expect("json.dumps writes JSON")
}

/// Every name is a variable of the server's.
pub(crate) fn assert_variables<'a>(file: &str, names: impl IntoIterator<Item = &'a str>) {
    let known: Vec<_> = GROUPS.iter().flat_map(|(_, variables)| variables.iter().map(|v| v.name)).collect();
    let mut count = 0;
    for name in names {
        assert!(known.contains(&name), "{file}: the server knows no {name}");
        count += 1;
    }
    assert!(count > 0, "{file} sets nothing");
}

/// Whole seconds, such as `60s`.
pub(crate) fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

/// What the end of a server takes once its calls are over, in seconds.
pub(crate) const CLOSING: u64 = 5;

/// Whether this test may become somebody else.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").expect("there is /proc").uid() == 0
}

/// A new empty folder that everybody may read; gone with the value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("sfu-deploy-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the folder for temporary files is ours to write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own folder");
        Folder(path)
    }

    /// Puts a copy of `from` in it.
    pub(crate) fn with(&self, from: &Path, to: &str) {
        let to = self.0.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("below the folder")).expect("our own folder");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
