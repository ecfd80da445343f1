"""The Streamlit shell: reads the workspace and turns it into blocks that pages show. No engine code, no torch."""
