//! The environment in which an Erlang node reaches other hosts of the cluster.
//!
//! A node loads the epmd module `pmd_epmd`, which asks this host's daemon where to connect to. It changes nothing else for
//! the programs in the node: what the system's resolver knows keeps its meaning. Programs that cannot load a module, and
//! nodes that have one of their own, get a resolver file instead.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::own_inetrc::{INETRC, resolver_file};
use crate::config::{environment, settings};
use crate::control::api::TunnelList;

/// The variable for flags that `erl` puts before those of its command line.
pub const FLAGS: &str = "ERL_AFLAGS";
/// The variable in which [`MODULE`] finds the hosts file.
const HOSTS_FILE: &str = "PMD_HOSTS_FILE";
/// The epmd module.
pub const MODULE: &str = "pmd_epmd";
/// The flag that names an epmd module.
const MODULE_FLAG: &str = "-epmd_module";
/// The variables from which the scripts of releases take the mode in which modules are loaded: Elixir's, and relx's.
const MODE_VARIABLES: [&str; 2] = [ELIXIR_MODE, "CODE_LOADING_MODE"];
/// Elixir's variable among [`MODE_VARIABLES`].
const ELIXIR_MODE: &str = "RELEASE_MODE";
/// Bytes of a program that are searched for [`MODE_VARIABLES`]. Scripts of releases have some 10 or 30 KiB.
const SCRIPT_SIZE: u64 = 256 * 1024;
/// Variables with flags for `erl`.
const FLAG_VARIABLES: [&str; 3] = [FLAGS, "ERL_FLAGS", "ERL_ZFLAGS"];

/// A variable for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Whether a value that the variable already has remains, after this one.
    pub before: bool,
}

impl Assignment {
    fn set(name: &'static str, value: String) -> Assignment {
        Assignment { name, value, before: false }
    }

    /// The value if the variable has the value `there` so far. One that is there already is not put there again.
    pub fn value_before(&self, there: Option<&OsStr>) -> OsString {
        match there.filter(|there| self.before && !there.is_empty()) {
            None => self.value.clone().into(),
            Some(there) if contains(there, MODULE) => there.to_owned(),
            Some(there) => {
                let mut value = OsString::from(&self.value);
                value.push(" ");
                value.push(there);
                value
            }
        }
    }
}

/// Whether the module is where the daemon says. A node that is told to load it cannot start without it.
pub fn has_module(tunnels: &TunnelList) -> bool {
    tunnels.module_folder.join(MODULE).with_extension("beam").is_file()
}

/// What to say where the module is missing.
pub fn missing_module(tunnels: &TunnelList) -> String {
    format!(
        "note: {} is missing, so nodes reach other hosts only by names that no resolver knows: see the daemon's log, and \
         restart pmd",
        tunnels.module_folder.join(MODULE).with_extension("beam").display()
    )
}

/// How a node is kept out of embedded mode, in which it loads no module that its boot script does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loading {
    /// By a flag. If the program gives `erl` a flag of its own, this one counts, but a node of OTP 27 or later then logs
    /// hundreds of lines before it starts, because its logger cannot load modules that early.
    ByFlag,
    /// By the variables that the scripts of Elixir's and relx's releases respect.
    ByScript,
    /// By the variable of an Elixir release; other programs of Elixir are not affected.
    ByElixir,
}

impl Loading {
    /// The way that is right for a program.
    pub fn of(program: &OsStr, path: Option<&OsStr>) -> Loading {
        if found(program, path).is_some_and(|file| is_script_of_release(&file)) {
            Loading::ByScript
        } else {
            Loading::ByFlag
        }
    }
}

/// The file that a command names, as a shell finds it.
fn found(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if Path::new(program).components().count() > 1 {
        return Some(program.into());
    }
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn is_script_of_release(file: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(SCRIPT_SIZE).read_to_end(&mut text));
    read.is_ok()
        && text.starts_with(b"#!")
        && MODE_VARIABLES.iter().any(|name| text.windows(name.len()).any(|part| part == name.as_bytes()))
}

/// The variables for a node that loads the module.
pub fn with_module(tunnels: &TunnelList, loading: Loading) -> Vec<Assignment> {
    let (mode, mode_variables) = match loading {
        Loading::ByFlag => ("-mode interactive ", &[][..]),
        Loading::ByScript => ("", &MODE_VARIABLES[..]),
        Loading::ByElixir => ("", &[ELIXIR_MODE][..]),
    };
    let folder = escaped(&tunnels.module_folder.to_string_lossy());
    let flags = format!("{mode}-pa {folder} {MODULE_FLAG} {MODULE}");
    let mut variables = vec![
        Assignment { name: FLAGS, value: flags, before: true },
        Assignment::set(HOSTS_FILE, tunnels.hosts_file.display().to_string()),
    ];
    variables.extend(mode_variables.iter().map(|name| Assignment::set(name, "interactive".to_owned())));
    variables.extend(port(tunnels));
    variables
}

/// The variables for a node or another program of Erlang's that finds hosts by its resolver alone.
pub fn with_resolver(tunnels: &TunnelList) -> Vec<Assignment> {
    let mut variables = vec![Assignment::set(INETRC, resolver_file(tunnels).display().to_string())];
    variables.extend(port(tunnels));
    variables
}

fn port(tunnels: &TunnelList) -> Option<Assignment> {
    (tunnels.port != settings::PORT).then(|| Assignment::set(environment::PORT, tunnels.port.to_string()))
}

/// The epmd module that a command line or its environment names, besides pmd's.
pub fn own_module(command: &[OsString], variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let from_environment = FLAG_VARIABLES.iter().filter_map(|name| variable(name));
    // A flag for `erl` may be an argument of its own, or in the middle of one: elixir --erl "-epmd_module x".
    let texts = command.iter().cloned().chain(from_environment);
    let words: Vec<String> = texts
        .flat_map(|text| {
            text.to_string_lossy().split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let named = words.windows(2).filter_map(|pair| match pair {
        [flag, module] if flag == MODULE_FLAG => Some(module.trim_matches(['"', '\''])),
        _ => None,
    });
    named.filter(|module| *module != MODULE).map(str::to_owned).next()
}

fn contains(text: &OsStr, word: &str) -> bool {
    text.to_string_lossy().split_ascii_whitespace().any(|found| found == word)
}

/// Escapes a word for the flags in a variable, which `erl` takes apart much as a shell does.
fn escaped(word: &str) -> String {
    let special = |character: &char| character.is_whitespace() || matches!(character, '\\' | '"' | '\'');
    word.chars()
        .flat_map(|character| Some('\\').filter(|_| special(&character)).into_iter().chain([character]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnels(port: u16) -> TunnelList {
        TunnelList {
            inetrc: "/var/lib/pmd/erl_inetrc-4369".into(),
            hosts_file: "/var/lib/pmd/hosts-4369".into(),
            module_folder: "/my own/erlang-4369".into(),
            port,
            host: String::new(),
            alias: None,
            aliases: Vec::new(),
            tunnels: Vec::new(),
        }
    }

    #[test]
    fn flags_of_the_user_remain_after_those_of_pmd() {
        let variables = with_module(&tunnels(4369), Loading::ByFlag);
        let flags = variables.iter().find(|variable| variable.name == FLAGS).expect("flags");
        let ours = r"-mode interactive -pa /my\ own/erlang-4369 -epmd_module pmd_epmd";
        assert_eq!(flags.value_before(None), ours);
        assert_eq!(flags.value_before(Some("".as_ref())), ours);
        assert_eq!(flags.value_before(Some("+P 1000".as_ref())), format!("{ours} +P 1000").as_str());
        assert_eq!(flags.value_before(Some(ours.as_ref())), ours, "not twice");
        assert_eq!(variables.len(), 2);
        assert!(
            with_module(&tunnels(4370), Loading::ByFlag)
                .contains(&Assignment::set("ERL_EPMD_PORT", "4370".into()))
        );
    }

    #[test]
    fn a_script_of_a_release_gets_a_variable_instead_of_a_second_flag() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let script = folder.path().join("app");
        let written = |text: &str| {
            std::fs::write(&script, text).expect("a script");
            (
                Loading::of(script.as_os_str(), None),
                Loading::of("app".as_ref(), Some(folder.path().as_os_str())),
            )
        };
        let by_script = (Loading::ByScript, Loading::ByScript);
        assert_eq!(written("#!/bin/sh\nerl -mode \"$RELEASE_MODE\"\n"), by_script);
        assert_eq!(written("#!/bin/sh\nerl -mode ${CODE_LOADING_MODE:-embedded}\n"), by_script);
        assert_eq!(written("#!/bin/sh\nerl -mode embedded\n"), (Loading::ByFlag, Loading::ByFlag));
        assert_eq!(written("\x7fELF RELEASE_MODE"), (Loading::ByFlag, Loading::ByFlag));
        assert_eq!(Loading::of("nosuch".as_ref(), Some(folder.path().as_os_str())), Loading::ByFlag);
        let variables = with_module(&tunnels(4369), Loading::ByScript);
        assert_eq!(variables[0].value, r"-pa /my\ own/erlang-4369 -epmd_module pmd_epmd");
        for name in MODE_VARIABLES {
            assert!(variables.contains(&Assignment::set(name, "interactive".into())));
        }
    }

    #[test]
    fn an_epmd_module_of_the_users_is_found_wherever_it_is_named() {
        let own = |command: &[&str], flags: Option<&str>| {
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            own_module(&command, |name| (name == "ERL_FLAGS").then_some(flags?.into()))
        };
        let mine = Some("mine".to_owned());
        assert_eq!(own(&["erl", "-epmd_module", "mine"], None), mine);
        assert_eq!(own(&["elixir", "--erl", "-epmd_module mine -smp"], None), mine);
        assert_eq!(own(&["erl"], Some("-pa x -epmd_module 'mine'")), mine);
        assert_eq!(own(&["erl", "-epmd_module", "pmd_epmd"], None), None);
        assert_eq!(own(&["erl", "-epmd_module"], None), None);
    }
}
