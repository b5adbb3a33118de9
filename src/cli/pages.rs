//! `wsevent completions` and `wsevent man`: written from the flags as clap knows them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Usage;
use super::args::Args;
use super::values::Words;
use crate::stdout::print;

/// The flags of `completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "bash: source <(wsevent completions bash), or as a file in /usr/share/bash-completion/completions/wsevent. zsh: as _wsevent in a folder of $fpath. fish: as ~/.config/fish/completions/wsevent.fish."
)]
pub struct CompletionsArgs {
    /// The shell: bash, zsh or fish
    #[arg(value_parser = Words::new(&["bash", "zsh", "fish"], shell), hide_possible_values = true)]
    pub shell: Shell,
}

fn shell(text: &str) -> Usage<Shell> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("bash, zsh or fish is expected".to_owned()),
    }
}

/// The flags of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The subcommand; without it, the page is that of wsevent itself
    pub subcommand: Option<String>,

    /// Write all pages into this folder, each as a file such as wsevent-tail.1
    #[arg(
        long,
        env = "WSEVENT_DIR",
        value_name = "FOLDER",
        conflicts_with = "subcommand"
    )]
    pub dir: Option<PathBuf>,
}

/// What is to be written.
pub enum Pages {
    /// What a shell needs.
    Completions(Shell),
    /// One page.
    Page(Box<Command>),
    /// All of them, into this folder.
    All(PathBuf),
}

impl From<CompletionsArgs> for Pages {
    fn from(args: CompletionsArgs) -> Self {
        Self::Completions(args.shell)
    }
}

/// Which page is meant.
pub fn man(args: ManArgs) -> Usage<Pages> {
    if let Some(folder) = args.dir {
        return Ok(Pages::All(folder));
    }
    let wanted = args.subcommand.as_deref();
    let mut all = pages();
    let at = all.iter().position(|page| of(page) == wanted);
    match at {
        Some(at) => Ok(Pages::Page(Box::new(all.swap_remove(at)))),
        None => {
            let known: Vec<_> = all.iter().filter_map(of).collect();
            let known = known.join(", ");
            Err(format!(
                "there is no subcommand '{}': there are {known}",
                wanted.unwrap_or_default()
            ))
        }
    }
}

/// The subcommand that a page is of, if it is of one.
fn of(page: &Command) -> Option<&str> {
    page.get_name().strip_prefix("wsevent-")
}

/// Each command as a page has it, that of `wsevent` itself first.
fn pages() -> Vec<Command> {
    let mut all = Args::command().disable_help_subcommand(true);
    all.build();
    let own = |command: &Command| {
        let name: &'static str = format!("wsevent-{}", command.get_name()).leak();
        command
            .clone()
            .name(name)
            .version(env!("CARGO_PKG_VERSION"))
    };
    let pages: Vec<_> = all.get_subcommands().map(own).collect();
    [all.clone()].into_iter().chain(pages).collect()
}

impl Pages {
    /// Writes them.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Completions(shell) => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Args::command(), "wsevent", &mut text);
                print(&text)
            }
            Self::Page(page) => print(&rendered(*page)?),
            Self::All(folder) => write_all(&folder),
        }
    }
}

fn rendered(page: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(page).render(&mut text)?;
    Ok(text)
}

fn write_all(folder: &Path) -> Result<()> {
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    fs::create_dir_all(folder).with_context(|| cannot(folder))?;
    for page in pages() {
        let path = folder.join(format!("{}.1", page.get_name()));
        let text = rendered(page)?;
        let written = File::create(&path).and_then(|mut file| file.write_all(&text));
        written.with_context(|| cannot(&path))?;
    }
    Ok(())
}
