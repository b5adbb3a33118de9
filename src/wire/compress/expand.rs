//! Reading a body that somebody else has compressed, piece by piece.

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Coding, Wrong};

/// The largest window of gzip.
const GZIP_WINDOW_BITS: u8 = 15;
/// The largest window that a body may need of its reader (RFC 9659): 8 MiB.
const ZSTD_WINDOW_BITS: u32 = 23;

/// Expands a body. Several members or frames may follow each other.
pub struct Expander(Kind);

enum Kind {
    Gzip {
        inflate: Box<Decompress>,
        /// A member has ended, and another may begin.
        has_ended: bool,
    },
    Zstd(DCtx<'static>),
}

impl Expander {
    /// For a body with this content coding; none for what is no such coding.
    pub fn new(coding: Coding) -> Option<Self> {
        Some(Self(match coding {
            Coding::Gzip => Kind::Gzip {
                inflate: Box::new(Decompress::new_gzip(GZIP_WINDOW_BITS)),
                has_ended: false,
            },
            Coding::Zstd => {
                let mut context = DCtx::create();
                let window = DParameter::WindowLogMax(ZSTD_WINDOW_BITS);
                context.set_parameter(window).expect("there are such");
                Kind::Zstd(context)
            }
            Coding::Deflate => return None,
        }))
    }

    /// Takes from the front of `input`, which goes on where the last one ended, and fills `output` as far as it goes: how much that
    /// is. Nothing is left to expand once `output` has not been filled, and all of `input` is taken then.
    pub fn next(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Wrong> {
        let mut filled = 0;
        loop {
            let (taken, made) = self.step(input, &mut output[filled..])?;
            *input = &input[taken..];
            filled += made;
            if filled == output.len() || input.is_empty() {
                return Ok(filled);
            }
            if taken == 0 && made == 0 {
                return Err(Wrong::Broken);
            }
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Wrong> {
        match &mut self.0 {
            Kind::Gzip { inflate, has_ended } => {
                if *has_ended {
                    if input.is_empty() {
                        return Ok((0, 0));
                    }
                    **inflate = Decompress::new_gzip(GZIP_WINDOW_BITS);
                    *has_ended = false;
                }
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, output, FlushDecompress::None);
                *has_ended = status.map_err(|_| Wrong::Broken)? == Status::StreamEnd;
                let taken = inflate.total_in() - before.0;
                let made = inflate.total_out() - before.1;
                Ok((taken as usize, made as usize))
            }
            Kind::Zstd(context) => {
                let mut input = InBuffer::around(input);
                let mut output = OutBuffer::around(output);
                let result = context.decompress_stream(&mut output, &mut input);
                result.map_err(|_| Wrong::Broken)?;
                Ok((input.pos(), output.pos()))
            }
        }
    }
}
