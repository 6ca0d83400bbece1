/** Keeps a fault in one panel from taking the whole page with it. */

import { Component, type ReactNode } from "react";

export class Guard extends Component<{ name: string; children: ReactNode }, { fault: string | null }> {
  override state = { fault: null };

  static getDerivedStateFromError(error: unknown): { fault: string } {
    return { fault: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactNode {
    if (this.state.fault === null) return this.props.children;
    return (
      <section className="card fault" role="alert">
        <p>{this.props.name} cannot be drawn: {this.state.fault}</p>
        <button type="button" className="btn" onClick={() => this.setState({ fault: null })}>Try again</button>
      </section>
    );
  }
}
