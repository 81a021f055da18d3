use std::path::Path;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(600);

fn shell(script: &str) -> Exec {
    let words = ["sh", "-c", script].map(str::to_owned);
    Exec { timeout: NEVER, ..Exec::new(CommandLine::new(words).expect("a command")) }
}

async fn error_of(script: &str) -> String {
    shell(script).addresses().await.expect_err(script).to_string()
}

/// Waits until `condition` has a value.
async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let value = async {
        loop {
            match condition() {
                Some(value) => return value,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), value).await.expect("the condition becomes true")
}

/// Waits until the file contains a whole line, and returns it as a number.
async fn number_in(path: &Path) -> i32 {
    let number = || std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok();
    until(number).await
}

/// Waits until the process no longer exists, not even as a zombie.
async fn gone(pid: i32) {
    until(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())).await;
}

/// Waits until the process has exited, whether or not it has been reaped.
async fn ended(pid: i32) {
    let has_ended = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
    };
    until(|| has_ended().then_some(())).await;
}

#[tokio::test]
async fn every_line_except_comments_is_reported() {
    let (sender, mut receiver) = mpsc::channel(16);
    let exec = shell("printf 'one\\n\\n# none\\n  10.0.0.1:99 # two\\n[::1]'; echo 'no error' >&2");
    let finds = Finds::new(exec.name(), sender);
    let running = tokio::spawn(async move { exec.every(Duration::from_millis(1)).run(&finds).await });
    for _ in 0..2 {
        for address in ["one", "10.0.0.1:99", "[::1]"] {
            assert_eq!(receiver.recv().await, Some((NAME, Find::at(address))));
        }
    }
    running.abort();
}

#[test]
fn a_program_gets_only_the_listed_variables() {
    let all = [
        ("PATH", "/bin"),
        ("HOME", "/home/joe"),
        ("PMD_HOST_NAME", "host1"),
        ("PMD_COOKIE_FILE", "/x"),
        ("NOTIFY_SOCKET", "/run/systemd/notify"),
        ("LISTEN_FDS", "2"),
        ("LD_PRELOAD", "/x.so"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let daemon = |name: &str| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let given: Vec<_> = environment(daemon).collect();
    let value = |text: &str| OsString::from(text);
    assert_eq!(
        given,
        [("PATH", value("/bin")), ("HOME", value("/home/joe")), ("PMD_HOST_NAME", value("host1"))]
    );
}

#[tokio::test]
async fn a_program_does_not_inherit_the_daemons_environment() {
    // Cargo sets variables of its own for tests.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    let error = error_of(
        "env | grep -v '^PWD=\\|^SHLVL=\\|^_=\\|^OLDPWD=' | sed 's/=.*//' | tr '\\n' ' ' >&2; exit 1",
    )
    .await;
    let names = error.strip_prefix("exit status: 1: ").unwrap_or_default();
    assert!(names.contains("PATH"), "{error}");
    for name in names.split_whitespace() {
        assert!(ENVIRONMENT.contains(&name), "{name} in {error}");
    }
}

#[tokio::test]
async fn a_failed_program_is_an_error() {
    assert_eq!(error_of("echo host; echo >&2; echo 'no key' >&2; exit 3").await, "exit status: 3: no key");
    assert_eq!(error_of("exit 1").await, "exit status: 1");
    assert_eq!(error_of("kill -9 $$").await, "signal: 9 (SIGKILL)");
    assert_eq!(error_of("printf 'a\\033[2Jb\\n' >&2; exit 1").await, "exit status: 1: a[2Jb");
    let missing = Exec::new("/no/such/program".parse().expect("a command"));
    let error = missing.addresses().await.expect_err("there is none").to_string();
    assert!(error.starts_with("cannot be started: No such file"), "{error}");
}

#[tokio::test]
async fn the_error_names_the_program() {
    let exec = Exec::new("/bin/false quietly".parse().expect("a command"));
    let (sender, _receiver) = mpsc::channel(1);
    let error = exec.run(&Finds::new(NAME, sender)).await.expect_err("it is false");
    assert_eq!(error.to_string(), "/bin/false: exit status: 1");
}

#[tokio::test]
async fn an_invalid_address_is_an_error_that_names_the_line() {
    let error = error_of("echo one; echo '<html>'").await;
    assert!(error.starts_with("line 2 of its output, \"<html>\", is not an address: "), "{error}");
    assert_eq!(error_of("printf '\\377'").await, "its output is not UTF-8");
}

#[tokio::test]
async fn a_program_that_prints_too_much_is_stopped() {
    assert_eq!(error_of("yes").await, "it was killed because it printed more than 65536 bytes");
    assert_eq!(error_of("seq -f a%g 1001").await, "it printed more than 1000 lines");
    assert_eq!(shell("seq -f a%g 1000").addresses().await.expect("addresses").len(), 1000);
    // Much output on standard error does not block the program.
    let much = shell("head -c 1000000 /dev/zero >&2 && echo host");
    assert_eq!(much.addresses().await.expect("an address"), ["host"]);
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let script = format!(
        "sleep 1000 & echo $! > {}; echo $$ > {}; wait",
        file("child").display(),
        file("self").display()
    );
    // The time to write the files is unknown, so the timeout is doubled until they exist.
    let mut timeout = Duration::from_millis(50);
    while !file("self").exists() {
        let exec = Exec { timeout, ..shell(&script) };
        let error = exec.addresses().await.expect_err("it sleeps").to_string();
        assert!(error.starts_with("it was killed after "), "{error}");
        timeout *= 2;
    }
    let (child, program) = (number_in(&file("child")).await, number_in(&file("self")).await);
    ended(child).await;
    gone(program).await;
}

#[tokio::test]
async fn a_program_ends_with_its_plugin() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    // The program itself has exited, and only its child still has the pipe open.
    let script =
        format!("echo $$ > {}; sleep 1000 & echo $! > {}", file("self").display(), file("child").display());
    let exec = shell(&script);
    let (sender, _receiver) = mpsc::channel(1);
    let finds = Finds::new(NAME, sender);
    let running = tokio::spawn(async move { exec.run(&finds).await });
    let (child, program) = (number_in(&file("child")).await, number_in(&file("self")).await);
    assert!(Path::new(&format!("/proc/{child}")).exists());
    running.abort();
    assert!(running.await.expect_err("it was stopped").is_cancelled());
    ended(child).await;
    gone(program).await;
}
