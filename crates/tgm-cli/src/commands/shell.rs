//! `tgm completions` and `tgm man`: what an installed program brings for the shell.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print the completions for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm completions bash > ~/.local/share/bash-completion/completions/tgm
  tgm completions zsh  > ~/.zfunc/_tgm
  tgm completions fish > ~/.config/fish/completions/tgm.fish")]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Print the manual page, or write those of all commands into a folder.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tgm man | man -l -
  tgm man --out ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// A folder for `tgm.1`, `tgm-pretrain.1`, …
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn completions(args: CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "tgm", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(())
}

pub(super) fn man(args: ManArgs) -> Result<()> {
    let command = super::Cli::command();
    let Some(folder) = args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print!("{}", String::from_utf8_lossy(&page));
        return Ok(());
    };
    std::fs::create_dir_all(&folder)
        .and_then(|()| clap_mangen::generate_to(command, &folder))
        .with_context(|| format!("cannot write the manual into {}", folder.display()))?;
    println!("{}", folder.display());
    Ok(())
}
