//! The formats in which a topology is written.

use clap::ValueEnum;

use super::{Topology, dot, mermaid, plantuml};

/// How a topology is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A deployment diagram for PlantUML.
    Puml,
    /// A flowchart for Mermaid.
    Mermaid,
    /// A graph for Graphviz.
    Dot,
    /// As hops tell it.
    Json,
}

impl Format {
    /// The topology so.
    pub fn render(self, topology: &Topology) -> String {
        match self {
            Self::Puml => plantuml::render(topology),
            Self::Mermaid => mermaid::render(topology),
            Self::Dot => dot::render(topology),
            Self::Json => {
                let json = serde_json::to_string_pretty(topology);
                json.expect("names and numbers are JSON") + "\n"
            }
        }
    }
}
